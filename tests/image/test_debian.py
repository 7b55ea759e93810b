"""A root image from Debian packages, with the real archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image import BuildError, ImageStore
from tests.image.tools import content, entries, staging_of


async def test_packages_become_a_root_image(store: ImageStore, home: Home, tmp_path: Path):
    definition = tmp_path / "tiny.toml"
    definition.write_text(
        """\
[debian]
packages = ["bc"]
exclude = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"]
include = ["/usr/share/doc/*/copyright"]
"""
    )
    image = await store.ensure_image(definition)
    found = entries(image.path)
    assert found["/"][:2] == ("drwxr-xr-x", "0/0")
    assert found["/usr/bin/passwd"][:2] == ("-rwsr-xr-x", "0/0")
    assert found["/etc/shadow"][:2] == ("-rw-r-----", "0/42")
    assert found["/tmp"][0] == "drwxrwxrwt"
    assert "/usr/bin/bc" in found
    assert "/usr/share/doc/bc/copyright" in found
    assert [path for path in found if path.startswith("/usr/share/locale/")] == []
    assert {package.name for package in image.manifest.packages} >= {"bc", "libc6", "apt"}
    # Nothing of the host that built it is in it.
    assert content(image.path, "etc/resolv.conf") == b"nameserver 10.0.2.3\n"
    assert content(image.path, "etc/hostname") == b"firebrick\n"
    assert content(image.path, "etc/machine-id") == b""
    sources = content(image.path, "etc/apt/sources.list.d/0000sources.list").decode()
    assert all(
        line.startswith("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ")
        for line in sources.splitlines()
    )
    assert str(home.root) not in sources
    assert image.size < 150 << 20
    await store.verify_image(image)
    assert staging_of(home) == []
    assert await store.ensure_image(definition) == image


async def test_a_package_debian_does_not_have_is_named(store: ImageStore, home: Home, tmp_path: Path):
    definition = tmp_path / "wrong.toml"
    definition.write_text('[debian]\npackages = ["no-such-package-at-all"]\n')
    with pytest.raises(BuildError, match="no-such-package-at-all"):
        await store.ensure_image(definition)
    assert store.find_image("wrong") is None
    assert staging_of(home) == []
