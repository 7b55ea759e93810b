"""Files and trees."""

import hashlib
import os
import resource
import tarfile
from pathlib import Path

import pytest

from firebrick.guest.client import Record, TreeEntry
from firebrick.guest.errors import (
    DirectoryNotEmptyError,
    FileExistsInGuestError,
    FileMissingError,
    IsADirectoryInGuestError,
    NotADirectoryInGuestError,
)
from firebrick.machine import Machine
from tests.conformance.ways import IN_LAB

MIB = 1 << 20
LARGE_MIB = 128 if IN_LAB else 256


@pytest.mark.every_way
async def test_written_is_what_is_read(m: Machine):
    data = os.urandom(300_000)
    assert await m.files.write("/tmp/file", data) == len(data)
    assert await m.files.read("/tmp/file") == data
    assert await m.files.read("/tmp/file", offset=1000, limit=10) == data[1000:1010]


async def test_commands_see_files_and_files_see_commands(m: Machine):
    await m.files.write("/tmp/in", b"content")
    await m.run(["sh", "-c", "cat /tmp/in /tmp/in > /tmp/out"], check=True)
    assert await m.files.read("/tmp/out") == b"contentcontent"


async def test_modes_parents_and_appending(m: Machine):
    await m.files.write("/tmp/a/b/c", b"1", mode=0o640, parents=True)
    await m.files.write("/tmp/a/b/c", b"2", append=True)
    entry = await m.files.stat("/tmp/a/b/c")
    assert (entry.mode, entry.size, entry.kind) == (0o640, 2, "file")
    await m.files.chmod("/tmp/a/b/c", 0o755)
    assert (await m.files.stat("/tmp/a/b/c")).mode == 0o755


async def test_directories(m: Machine):
    await m.files.mkdir("/tmp/d", mode=0o700)
    for name in ("z", "a", b"\xff"):
        await m.files.write(os.path.join(b"/tmp/d", os.fsencode(name)), b"x")
    assert [entry.name for entry in await m.files.list("/tmp/d")] == [b"a", b"z", b"\xff"]
    with pytest.raises(DirectoryNotEmptyError):
        await m.files.remove("/tmp/d")
    await m.files.remove("/tmp/d", recursive=True)
    assert not await m.files.exists("/tmp/d")


async def test_links(m: Machine):
    await m.files.write("/tmp/target", b"here")
    await m.files.symlink("/tmp/link", "target")
    assert await m.files.read("/tmp/link") == b"here"
    assert (await m.files.stat("/tmp/link", follow=False)).target == b"target"
    await m.files.remove("/tmp/link")
    assert await m.files.exists("/tmp/target")


async def test_moving(m: Machine):
    await m.files.write("/tmp/1", b"1")
    await m.files.write("/tmp/2", b"2")
    with pytest.raises(FileExistsInGuestError):
        await m.files.move("/tmp/1", "/tmp/2")
    await m.files.move("/tmp/1", "/tmp/2", overwrite=True)
    assert await m.files.read("/tmp/2") == b"1"
    assert not await m.files.exists("/tmp/1")


async def test_errors_say_operation_and_path(m: Machine):
    with pytest.raises(FileMissingError, match="/tmp/none"):
        await m.files.read("/tmp/none")
    with pytest.raises(IsADirectoryInGuestError):
        await m.files.read("/tmp")
    await m.files.write("/tmp/plain", b"")
    with pytest.raises(NotADirectoryInGuestError):
        await m.files.read("/tmp/plain/below")
    await m.files.remove("/tmp/none", missing_ok=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Links, modes, holes, odd names, an empty directory."""
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o750)
    (root / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (root / "run.sh").chmod(0o755)
    (root / "sub" / "data").write_bytes(os.urandom(100_000))
    os.link(root / "sub" / "data", root / "sub" / "again")
    (root / "sub" / "deep" / "link").symlink_to("../data")
    (root / "dangling").symlink_to("/nowhere/at all")
    Path(os.fsdecode(os.path.join(os.fsencode(root), b"n\xe4me"))).write_bytes(b"odd")
    with (root / "holes").open("wb") as f:
        f.truncate(5 * MIB)
        f.seek(3 * MIB)
        f.write(b"island")
    return root


def described(root: Path) -> dict[bytes, tuple]:
    found = {}
    for path in [root, *root.rglob("*")]:
        facts = path.lstat()
        kind, content = facts.st_mode >> 12, b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).digest()
        mode = 0 if path.is_symlink() else facts.st_mode & 0o777
        found[os.fsencode(path.relative_to(root))] = (kind, mode, content, facts.st_nlink if path.is_file() else 0)
    return found


@pytest.mark.every_way
async def test_a_tree_survives_the_way_there_and_back(m: Machine, tree, tmp_path):
    await m.upload(tree, "/tmp/tree")
    assert (await m.files.stat("/tmp/tree/dangling", follow=False)).target == b"/nowhere/at all"
    back = tmp_path / "back"
    await m.download("/tmp/tree", back)
    assert described(back) == described(tree)
    assert (back / "holes").stat().st_blocks * 512 < MIB


def entry(path: str, mode: int, uid: int, content: bytes | None = None, target: bytes | None = None) -> TreeEntry:
    kind = "symlink" if target else "directory" if content is None else "file"
    size = len(content) if content is not None else None
    fields = {"mtime_ns": 10**18, "uid": uid, "gid": uid + 1, "size": size, "target": target}
    return Record(path=path.encode(), kind=kind, mode=mode, **fields), [content] if content else []


@pytest.mark.every_way
async def test_entries_keep_their_owners_on_the_way_there_and_as_an_archive(m: Machine, tmp_path):
    entries = [
        entry("", 0o751, 3),
        entry("below", 0o1777, 7),
        entry("below/su", 0o4755, 1000, b"x" * 300_000),
        entry("empty", 0o600, 0, b""),
        entry("link", 0o777, 5, target=b"below/su"),
    ]
    await m.upload_entries(entries, "/tmp/entries")
    top = await m.files.stat("/tmp/entries")
    assert (top.mode, top.uid, top.gid) == (0o751, 3, 4)
    with (tmp_path / "out.tar").open("wb") as out:
        await m.archive("/tmp/entries", out.fileno(), exclude=["empty"])
    with tarfile.open(tmp_path / "out.tar") as archive:
        found = {one.name: (one.mode, one.uid, one.gid, one.mtime) for one in archive}
        assert archive.extractfile("below/su").read() == b"x" * 300_000
        assert archive.getmember("link").linkname == "below/su"
    assert found == {
        "below": (0o1777, 7, 8, 10**9),
        "below/su": (0o4755, 1000, 1001, 10**9),
        "link": (0o777, 5, 6, 10**9),
    }


@pytest.mark.real
async def test_what_is_uploaded_can_be_run(m: Machine, tree):
    await m.upload(tree, "/tmp/tree")
    assert (await m.run(["/tmp/tree/run.sh"], check=True)).stdout == b"ran\n"
    du = await m.run(["du", "-k", "/tmp/tree/holes"], check=True)
    assert int(du.stdout.split()[0]) < 1024


@pytest.mark.real
async def test_large_files_pass_without_being_held_in_memory(m: Machine, tmp_path):
    """LARGE_MIB of data and a gigabyte of hole, each way, with a limit on what this process may use beyond what it has."""
    root = tmp_path / "large"
    root.mkdir()
    block = os.urandom(MIB)
    with (root / "data").open("wb") as f:
        for i in range(LARGE_MIB):
            f.write(i.to_bytes(4, "big") + block[4:])
    with (root / "sparse").open("wb") as f:
        f.truncate(1 << 30)
        f.seek((1 << 30) - 4)
        f.write(b"last")
    before = _resident()
    await m.upload(root, "/tmp/large")
    back = tmp_path / "back"
    await m.download("/tmp/large", back)
    assert _peak() - before < 64 * MIB
    assert _digest(back / "data") == _digest(root / "data")
    assert (back / "sparse").stat().st_size == 1 << 30
    assert (back / "sparse").stat().st_blocks * 512 < MIB
    with (back / "sparse").open("rb") as f:
        f.seek(-4, os.SEEK_END)
        assert f.read() == b"last"


def _digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
