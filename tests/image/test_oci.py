"""Images from OCI layouts and Dockerfiles, with the real tools. What is in a layout may come from anybody."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image import BuildError, ImageStore
from firebrick.image.unpack import unpack
from firebrick.process import run
from tests.image.tools import BUSYBOX, Recorder, content, define_oci, entries, layer, make_layout, staging_of, symlink

BELOW = layer(
    ("etc", None, 0o755, 0),
    ("etc/shadow", b"secret", 0o640, 42),
    ("etc/old", b"old", 0o644, 0),
    ("opt", None, 0o755, 0),
    ("opt/a", b"a", 0o644, 0),
    ("bin", None, 0o755, 0),
    ("bin/su", b"x" * 5000, 0o4755, 0),
)
ABOVE = layer(
    ("etc/.wh.old", b"", 0o644, 0),
    ("opt", None, 0o755, 0),
    ("opt/.wh..wh..opq", b"", 0o644, 0),
    ("opt/b", b"b", 0o600, 1000),
    symlink("lib", "usr/lib"),
)


async def test_layers_owners_modes_and_whiteouts(store: ImageStore, home: Home, tmp_path: Path):
    image = await store.ensure_image(define_oci(tmp_path, [BELOW, ABOVE]))
    found = entries(image.path)
    assert found["/"][:2] == ("drwxr-xr-x", "0/0")
    assert found["/etc/shadow"] == ("-rw-r-----", "42/42", 6)
    assert found["/bin/su"] == ("-rwsr-xr-x", "0/0", 5000)
    assert found["/opt/b"] == ("-rw-------", "1000/1000", 1)
    assert "/lib" in found
    assert not {"/etc/old", "/opt/a"} & set(found)
    assert not [path for path in found if ".wh." in path]
    assert content(image.path, "etc/shadow") == b"secret"
    assert (image.manifest.kind, image.manifest.description) == ("oci", "somebody else's")
    assert staging_of(home) == []


async def test_an_image_is_built_again_when_its_input_has_changed_and_only_then(store: ImageStore, tmp_path: Path):
    definition = define_oci(tmp_path, [BELOW])
    first = await store.ensure_image(definition)
    quiet = Recorder()
    assert await store.ensure_image(definition, progress=quiet) == first
    assert quiet.stages == []
    define_oci(tmp_path, [BELOW, ABOVE])
    second = await store.ensure_image(definition)
    assert second.digest != first.digest
    assert second.manifest.definition != first.manifest.definition
    assert "/opt/b" in entries(second.path)
    assert store.find_image("vendor") == second
    assert [image.digest for image in await store.prune_images()] == [first.digest]


async def test_a_layout_cannot_write_outside_of_the_image(store: ImageStore, home: Home, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = layer(
        ("../../../../../../../../../../evil", b"1", 0o644, 0),
        symlink("out", str(outside)),
        ("out/evil", b"2", 0o644, 0),
        symlink("up", "../../../../../../../.." + str(outside)),
        ("up/evil", b"3", 0o644, 0),
        ("/absolute", b"4", 0o644, 0),
    )
    image = await store.ensure_image(define_oci(tmp_path, [hostile]))
    assert list(outside.iterdir()) == []
    assert not Path("/evil").exists()
    assert not Path("/absolute").exists()
    assert "/absolute" in entries(image.path)


async def test_a_damaged_layer_is_refused_and_nothing_is_left(store: ImageStore, home: Home, tmp_path: Path):
    definition = define_oci(tmp_path, [BELOW])
    blob = max((tmp_path / "layout/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes().replace(b"secret", b"SECRET"))
    with pytest.raises(BuildError, match="cannot build the image vendor"):
        await store.ensure_image(definition)
    assert store.list_images() == []
    assert staging_of(home) == []


async def test_archives_of_both_kinds(store: ImageStore, tmp_path: Path):
    layout = make_layout(tmp_path / "layout", [BELOW])
    with tarfile.open(tmp_path / "oci.tar", "w") as tar:
        tar.add(layout, ".")
    docker = f"docker-archive:{tmp_path}/docker.tar:x:latest"
    await run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:latest", docker])
    for name in ("oci", "docker"):
        (tmp_path / f"{name}-image.toml").write_text(f'[oci]\npath = "{name}.tar"\n')
        image = await store.ensure_image(tmp_path / f"{name}-image.toml")
        assert entries(image.path)["/bin/su"] == ("-rwsr-xr-x", "0/0", 5000)


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    """A definition with a Dockerfile and its context, which needs no registry."""
    shutil.copy2(BUSYBOX, tmp_path / "busybox")
    (tmp_path / "Dockerfile").write_text(
        """\
FROM scratch
ARG WORD=none
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
RUN /bin/busybox --install -s /bin && mkdir -p /etc /gone /srv && echo $WORD > /etc/word && touch /gone/x && chown 33:44 /srv && chmod 2750 /srv
RUN rm -r /gone
"""
    )
    (tmp_path / "mine.toml").write_text('[dockerfile]\narguments = { WORD = "brick; touch /x" }\n')
    return tmp_path / "mine.toml"


async def test_a_dockerfile_becomes_an_image(store: ImageStore, home: Home, dockerfile: Path):
    seen = Recorder()
    image = await store.ensure_image(dockerfile, progress=seen)
    found = entries(image.path)
    assert content(image.path, "etc/word") == b"brick; touch /x\n"
    assert found["/srv"][:2] == ("drwxr-s---", "33/44")
    assert found["/bin/busybox"][2] == BUSYBOX.stat().st_size
    assert "/bin/sh" in found
    assert not {"/gone", "/x"} & set(found)
    assert seen.stages == ["Building the Dockerfile", "Unpacking layers", "Writing the image", "Recording the digest"]
    assert set(image.manifest.tools) == {"buildah", "umoci", "mksquashfs"}
    assert staging_of(home) == []


async def test_a_line_of_a_dockerfile_that_fails_says_what_it_said(store: ImageStore, home: Home, dockerfile: Path):
    with (dockerfile.parent / "Dockerfile").open("a") as file:
        file.write("RUN echo no such luck >&2 && exit 3\n")
    with pytest.raises(BuildError, match="no such luck"):
        await store.ensure_image(dockerfile)
    assert store.find_image("mine") is None
    assert staging_of(home) == []


def sparse(name: str, size: int) -> bytes:
    """A layer of one file in the sparse format 1.0 of pax: a byte in the archive, `size` bytes when it is unpacked."""
    fields = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    table = f"1\n{size - 1}\n1\n".encode().ljust(512, b"\0")
    info = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    info.size, info.pax_headers = len(table) + 1, fields
    return info.tobuf(tarfile.PAX_FORMAT) + table + b"x".ljust(512, b"\0")


END = bytes(1024)
MIB = 1 << 20


@pytest.mark.parametrize(
    "sizes", [[1 << 42], [24 * MIB] * 4], ids=["a file as large as a disk", "files that are too large together"]
)
async def test_an_image_that_grows_is_given_up(tmp_path: Path, sizes: list[int]):
    archive = b"".join(sparse(f"file{number}", size) for number, size in enumerate(sizes)) + END
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(BuildError, match="takes more than 64 MiB, unpacked") as raised:
        await unpack(make_layout(tmp_path / "layout", [archive]), "latest", work / "bundle", limit=64 * MIB)
    assert "containers_limit_mib" in raised.value.hint
    used = sum(file.stat().st_blocks * 512 for file in work.rglob("*") if file.is_file())
    assert used < 128 * MIB


async def test_a_sparse_file_within_the_bound_is_as_it_says(store: ImageStore, tmp_path: Path):
    image = await store.ensure_image(define_oci(tmp_path, [sparse("a", 3 * MIB) + END]))
    assert content(image.path, "a") == bytes(3 * MIB - 1) + b"x"


async def test_unpacking_that_is_cancelled_ends(tmp_path: Path):
    layout = make_layout(tmp_path / "layout", [sparse("file", 1 << 30) + END])
    (tmp_path / "work").mkdir()
    task = asyncio.create_task(unpack(layout, "latest", tmp_path / "work/bundle", limit=1 << 40))
    while not (tmp_path / "work/bundle").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
