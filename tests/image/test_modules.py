"""Single modules out of the archive of a kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.image.errors import BuildError
from firebrick.image.squashfs import read_modules, squash_archive


async def test_they_are_found_by_their_place_in_the_source(tmp_path: Path) -> None:
    place = tmp_path / "modules/6.1.0-1/kernel/fs/fuse"
    place.mkdir(parents=True)
    (place / "fuse.ko").write_bytes(b"\x7fELF one")
    (place / "cuse.ko").write_bytes(b"\x7fELF two")
    archive = tmp_path / "modules.squashfs"
    await squash_archive(tmp_path / "modules", archive)
    found = await read_modules(archive, ("fs/fuse/fuse", "fs/fuse/cuse"))
    assert list(found.items()) == [("fs/fuse/fuse", b"\x7fELF one"), ("fs/fuse/cuse", b"\x7fELF two")]
    with pytest.raises(BuildError, match="no module fs/none"):
        await read_modules(archive, ("fs/none",))
