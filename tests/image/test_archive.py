"""Images made of an archive somebody writes, with the real tools: they are what was written, or nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile

import pytest

from firebrick.guest.tree import in_thread
from firebrick.home import Home
from firebrick.image import BuildError, ImageStore
from firebrick.node.container.built import StoredImages, name_of
from tests.image.tools import content, entries, layer, staging_of, symlink

KEY, OTHER = "1" * 64, "2" * 64
ROOT = layer(
    ("etc", None, 0o755, 0),
    ("etc/shadow", b"secret", 0o640, 42),
    ("su", b"x" * 5000, 0o4755, 1000),
    symlink("lib", "usr/lib"),
)


def writing(archive: bytes):
    async def write(fd: int) -> None:
        await asyncio.to_thread(os.write, fd, archive)

    return write


@pytest.fixture
def built(store: ImageStore) -> StoredImages:
    return StoredImages(store, limit_mib=1)


async def test_an_image_is_found_by_its_key(store: ImageStore, home: Home, built: StoredImages):
    assert built.find(KEY) is None
    name = await built.make(KEY, writing(ROOT), "a test")
    assert (name, built.find(KEY), built.find(OTHER)) == (name_of(KEY), name_of(KEY), None)
    image = store.find_image(name)
    assert image is not None
    assert (image.manifest.kind, image.manifest.description) == ("archive", "a test")
    assert content(image.path, "etc/shadow") == b"secret"
    found = entries(image.path)
    assert found["/su"] == ("-rwsr-xr-x", "1000/1000", 5000)
    assert found["/etc/shadow"][:2] == ("-rw-r-----", "42/42")
    assert staging_of(home) == []


async def test_an_empty_root(store: ImageStore, built: StoredImages):
    image = store.find_image(await built.make(KEY, writing(bytes(1024)), ""))
    assert image is not None
    assert list(entries(image.path)) == ["/"]


async def test_another_image_of_the_name_is_not_found(store: ImageStore, built: StoredImages):
    """A name is a part of a key; the image of it says the whole."""
    await store.make_archived(name_of(KEY), OTHER, writing(ROOT))
    assert built.find(KEY) is None


async def test_a_writer_that_fails_leaves_nothing(store: ImageStore, home: Home, built: StoredImages):
    async def fail(fd: int) -> None:
        await asyncio.to_thread(os.write, fd, ROOT[:1024])
        raise ValueError("the machine is gone")

    with pytest.raises(ValueError, match="gone"):
        await built.make(KEY, fail, "")
    assert (built.find(KEY), store.list_images(), staging_of(home)) == (None, [], [])


async def test_what_is_no_archive_is_refused(store: ImageStore, home: Home, built: StoredImages):
    async def endless(fd: int) -> None:
        while True:
            await asyncio.to_thread(os.write, fd, b"x" * 65536)

    with pytest.raises(BuildError, match="cannot make the image"):
        await built.make(KEY, endless, "")
    assert (store.list_images(), staging_of(home)) == ([], [])


async def test_one_that_is_cancelled_leaves_nothing(store: ImageStore, home: Home, built: StoredImages):
    async def wait(fd: int) -> None:
        await asyncio.to_thread(os.write, fd, ROOT[:512])
        begun.set()
        await asyncio.sleep(60)

    begun = asyncio.Event()
    task = asyncio.create_task(built.make(KEY, wait, ""), name="test-make")
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (store.list_images(), staging_of(home)) == ([], [])


async def test_one_that_is_cancelled_while_it_writes_leaves_nothing(store: ImageStore, home: Home, built: StoredImages):
    """A thread is in the middle of a write nobody will read: it has to see that."""
    info = tarfile.TarInfo("endless")
    info.size = 1 << 40
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def fill(fd: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(fd, info.tobuf())
            while True:
                os.write(fd, bytes(65536))
                loop.call_soon_threadsafe(begun.set)

    async def write(fd: int) -> None:
        await in_thread(fill, fd)

    task = asyncio.create_task(built.make(KEY, write, ""), name="test-make")
    async with asyncio.timeout(60):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (store.list_images(), staging_of(home)) == ([], [])


def large() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("big")
        info.size = 700_000
        archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return out.getvalue()


def slowly(archive: bytes):
    async def write(fd: int) -> None:
        def all_of_it() -> None:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(archive)

        await asyncio.to_thread(all_of_it)

    return write


async def test_the_oldest_make_room(store: ImageStore, home: Home, built: StoredImages):
    keys = [str(number) * 64 for number in range(4)]
    for number, key in enumerate(keys[:3]):
        await StoredImages(store, limit_mib=100).make(key, slowly(large()), "")
        old = 1_000_000_000 + number
        os.utime(home.images / "names" / name_of(key), (old, old), follow_symlinks=False)
    assert built.find(keys[0]) is not None, "and that is a use of it"
    claimed = store.find_image(name_of(keys[1]))
    assert claimed is not None
    store.claim(claimed, home.images)
    await built.make(keys[3], slowly(large()), "")
    assert [key for key in keys if built.find(key) is None] == [keys[2]], "one is in use, two were used lately"


async def test_of_what_is_not_there_no_lock_stays(store: ImageStore, home: Home, built: StoredImages):
    with pytest.raises(BuildError):
        async with built.making(KEY, lambda: None):
            await built.make(KEY, writing(b"no archive" * 100), "")
    assert list((home.images / "locks").iterdir()) == []
    async with built.making(KEY, lambda: None):
        name = await built.make(KEY, writing(ROOT), "")
    await store.remove_image(name)
    assert list((home.images / "locks").iterdir()) == []
