"""Files and trees."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import subprocess
from pathlib import Path, PurePath

import pytest

from firebrick.guest import message
from firebrick.guest.client import Agent
from firebrick.guest.errors import AgentError, BadRequestError, FileMissingError, OutputTooLargeError
from firebrick.guest.tree import END, EXTENT, LENGTH, Record
from tests.agent.conftest import Guest


async def refused(code: str, call: object) -> None:
    with pytest.raises(AgentError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code == code
    assert str(caught.value)


# --- on every guest ---


async def test_write_and_read(guest: Guest, agent: Agent) -> None:
    path, files = f"{guest.place}/a/b/f", agent.files
    await refused("not_found", files.write(path, b"x"))
    assert await files.write(path, b"content", parents=True, mode=0o640) == 7
    assert await files.read(path) == b"content"
    assert await files.read(path, offset=3, limit=2) == b"te"
    assert await files.read(path, offset=99) == b""
    assert (await files.stat(path)).mode == 0o640
    await files.write(path, b" more", append=True)
    assert await files.read(path) == b"content more"
    await files.write(path, b"less")
    assert await files.read(path) == b"less"
    assert (await files.stat(path)).mode == 0o640, "a file that is written again keeps its mode"


async def test_a_large_file(guest: Guest, agent: Agent) -> None:
    data = os.urandom(3 << 20)
    assert await agent.files.write(f"{guest.place}/f", data) == len(data)
    assert await agent.files.read(f"{guest.place}/f") == data
    assert b"".join([c async for c in agent.files.stream(f"{guest.place}/f", offset=1 << 20)]) == data[1 << 20 :]


async def test_an_endless_read_ends(guest: Guest, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firebrick.guest.files.READ_LIMIT", 100_000)
    await agent.files.write(f"{guest.place}/f", bytes(200_000))
    with pytest.raises(OutputTooLargeError):
        await agent.files.read(f"{guest.place}/f")


async def test_entries(guest: Guest, agent: Agent) -> None:
    place, files = guest.place, agent.files
    await files.write(f"{place}/f", b"12345", mode=0o604)
    await files.mkdir(f"{place}/d", mode=0o711)
    await files.symlink(f"{place}/l", "f")
    entries = {e.name: e for e in await files.list(str(place))}
    assert {name: e.kind for name, e in entries.items()} == {b"f": "file", b"d": "directory", b"l": "symlink"}
    assert (entries[b"f"].size, entries[b"f"].mode, entries[b"f"].nlink) == (5, 0o604, 1)
    assert entries[b"f"].uid == guest.uid
    assert entries[b"l"].target == b"f"
    assert entries[b"d"].mode == 0o711
    assert entries[b"f"].mtime_ns > 1_600_000_000_000_000_000
    assert (await files.stat(f"{place}/l")).kind == "file"
    assert (await files.stat(f"{place}/l", follow=False)).kind == "symlink"
    assert (await files.stat(f"{place}/f")).name == b"f"


async def test_a_directory_with_many_entries(guest: Guest, agent: Agent) -> None:
    for i in range(0, 500, 50):
        await asyncio.gather(*(agent.files.write(f"{guest.place}/{i + j:0100}", b"") for j in range(50)))
    names = [e.name for e in await agent.files.list(str(guest.place))]
    assert names == [f"{i:0100}".encode() for i in range(500)]


async def test_remove_move_mkdir_chmod(guest: Guest, agent: Agent) -> None:
    place, files = guest.place, agent.files
    await files.mkdir(f"{place}/a/b/c", parents=True)
    await files.mkdir(f"{place}/a/b/c", parents=True)
    await refused("exists", files.mkdir(f"{place}/a"))
    await refused("not_found", files.mkdir(f"{place}/x/y"))
    await files.write(f"{place}/a/f", b"1")
    await refused("not_empty", files.remove(f"{place}/a"))
    await refused("not_found", files.remove(f"{place}/none"))
    await files.remove(f"{place}/none", missing_ok=True)
    await files.move(f"{place}/a/f", f"{place}/g")
    await files.write(f"{place}/h", b"2")
    await refused("exists", files.move(f"{place}/g", f"{place}/h"))
    await files.move(f"{place}/g", f"{place}/h", overwrite=True)
    assert await files.read(f"{place}/h") == b"1"
    await files.chmod(f"{place}/h", 0o400)
    assert (await files.stat(f"{place}/h")).mode == 0o400
    await files.remove(f"{place}/a", recursive=True)
    await files.remove(f"{place}/h")
    assert await files.list(str(place)) == []
    assert not await files.exists(f"{place}/a")


async def test_removing_a_link_leaves_its_target(guest: Guest, agent: Agent) -> None:
    await agent.files.write(f"{guest.place}/d/f", b"kept", parents=True)
    await agent.files.symlink(f"{guest.place}/l", "d")
    await agent.files.remove(f"{guest.place}/l", recursive=True)
    assert await agent.files.read(f"{guest.place}/d/f") == b"kept"


async def test_the_codes_of_what_cannot_be(guest: Guest, agent: Agent) -> None:
    place, files = guest.place, agent.files
    await files.write(f"{place}/f", b"")
    await refused("not_found", files.read(f"{place}/none"))
    await refused("not_found", files.stat(f"{place}/none"))
    await refused("is_a_directory", files.read(str(place)))
    await refused("is_a_directory", files.write(str(place), b"x"))
    await refused("not_a_directory", files.list(f"{place}/f"))
    await refused("not_a_directory", files.stat(f"{place}/f/x"))
    await refused("exists", files.symlink(f"{place}/f", "x"))


def make_tree(root: Path) -> None:
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/deep").write_bytes(os.urandom(300_000))
    (root / "d/tool").write_text("#!/bin/sh\necho tool\n")
    (root / "d/tool").chmod(0o755)
    (root / "empty").touch()
    (root / "link").symlink_to("d/e/deep")
    (root / "dangling").symlink_to("/no/where")
    os.link(root / "empty", root / "hard")
    (root / os.fsdecode(b"\xff name\n")).write_text("x")
    with (root / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(33 << 20)
        file.write(b"middle")
    os.utime(root / "d", ns=(1, 1_500_000_000_123_456_789))


async def compared(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


def digest(root: Path) -> list[str]:
    argv = ["find", ".", "!", "-type", "d", "-printf", "%P %y %m %s %l %T@\n", "-o", "-printf", "%P %y %m %T@\n"]
    listing = subprocess.run(argv, cwd=root, check=True, capture_output=True).stdout
    return sorted(os.fsdecode(line) for line in listing.split(b"\n") if line and not line.startswith(b" "))


async def test_a_tree_there_and_back(guest: Guest, agent: Agent, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    sent = await agent.upload(source, f"{guest.place}/tree", uid=guest.uid, gid=guest.uid)
    assert sent.entries == 11
    got = await agent.download(f"{guest.place}/tree", tmp_path / "back")
    assert got.entries == sent.entries
    assert got.bytes < 1 << 20, "holes were moved"
    assert digest(tmp_path / "back") == digest(source)
    await compared("diff", "-r", "--no-dereference", str(source), str(tmp_path / "back"))
    assert (tmp_path / "back/hard").samefile(tmp_path / "back/empty")
    assert (tmp_path / "back/sparse").stat().st_blocks * 512 < 1 << 20


async def test_a_part_of_a_tree(guest: Guest, agent: Agent, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    only = [PurePath("d/e/deep"), PurePath("link")]
    await agent.upload(tmp_path / "source", f"{guest.place}/t", only=only, uid=guest.uid, gid=guest.uid)
    assert [e.name for e in await agent.files.list(f"{guest.place}/t")] == [b"d", b"link"]
    assert [e.name for e in await agent.files.list(f"{guest.place}/t/d")] == [b"e"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ([], {"", "a", "a/x.o", "a/b", "a/b/x.o", "c"}),
        (["*.o"], {"", "a", "a/b", "c"}),
        (["a/*.o"], {"", "a", "a/b", "a/b/x.o", "c"}),
        (["/a"], {"", "c"}),
        (["b"], {"", "a", "a/x.o", "c"}),
        (["a/**"], {"", "a", "c"}),
        (["**/x.o"], {"", "a", "a/b", "c"}),
        (["a/**/x.o"], {"", "a", "a/b", "c"}),
        (["[!a]"], {"", "a", "a/x.o"}),
        (["b", "c", "x.?"], {"", "a"}),
    ],
)
async def test_patterns_leave_out(
    guest: Guest, agent: Agent, tmp_path: Path, exclude: list[str], left: set[str]
) -> None:
    for path in ("a/x.o", "a/b/x.o", "c"):
        await agent.files.write(f"{guest.place}/t/{path}", b"", parents=True)
    await agent.download(f"{guest.place}/t", tmp_path / "back", exclude=exclude)
    found = {str(p.relative_to(tmp_path / "back")) for p in (tmp_path / "back").rglob("*")}
    assert found | {""} == left


async def test_a_single_file_comes_down(guest: Guest, agent: Agent, tmp_path: Path) -> None:
    await agent.files.write(f"{guest.place}/f", b"content")
    count = await agent.download(f"{guest.place}/f", tmp_path / "mine")
    assert (count.entries, count.bytes) == (1, 7)
    assert (tmp_path / "mine").read_bytes() == b"content"


async def test_downloading_nothing(guest: Guest, agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        await agent.download(f"{guest.place}/none", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


async def test_uploading_over_what_is_there(guest: Guest, agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "t/d").mkdir(parents=True)
    (tmp_path / "t/d/f").write_text("new")
    (tmp_path / "t/l").write_text("a file now")
    place = f"{guest.place}/t"
    await agent.files.write(f"{place}/d/f", b"old", parents=True)
    await agent.files.write(f"{place}/d/kept", b"kept")
    await agent.files.write(f"{guest.place}/outside", b"outside")
    await agent.files.symlink(f"{place}/l", "../outside")
    await agent.upload(tmp_path / "t", place, uid=guest.uid, gid=guest.uid)
    assert await agent.files.read(f"{place}/d/f") == b"new"
    assert await agent.files.read(f"{place}/d/kept") == b"kept"
    assert await agent.files.read(f"{place}/l") == b"a file now"
    assert await agent.files.read(f"{guest.place}/outside") == b"outside"


def record(path: bytes, kind: str, **fields: object) -> bytes:
    packed = message.pack(Record(path=path, kind=kind, mode=0o755, mtime_ns=0, uid=0, gid=0, **fields))  # type: ignore[arg-type]
    return LENGTH.pack(len(packed)) + packed


ROOT = record(b"", "directory")
HOSTILE = {
    "dotdot": record(b"../x", "directory"),
    "absolute": record(b"/tmp/x", "directory"),
    "through_link": record(b"l", "symlink", target=b"..") + record(b"l/x", "directory"),
    "hardlink_out": record(b"h", "hardlink", target=b"../outside"),
    "hardlink_through_link": record(b"l", "symlink", target=b"..") + record(b"h", "hardlink", target=b"l/outside"),
    "extent_past_end": record(b"f", "file", size=1) + EXTENT.pack(1, 1) + b"x",
    "extent_too_long": record(b"f", "file", size=1 << 30) + EXTENT.pack(0, (1 << 20) + 1),
    "record_too_long": LENGTH.pack(1 << 30),
    "garbage": LENGTH.pack(3) + b"\xc1\xc1\xc1",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_the_agent_confines_what_a_host_sends(guest: Guest, agent: Agent, name: str) -> None:
    await agent.files.write(f"{guest.place}/outside", b"kept")
    request = message.Upload(path=os.fsencode(guest.place / "t"), uid=guest.uid, gid=guest.uid)
    async with agent._connection.stream(request) as stream:
        await stream.send(ROOT + HOSTILE[name] + END)
        await stream.send_eof()
        with pytest.raises(BadRequestError):
            await stream.last(message.Done)
    assert {e.name for e in await agent.files.list(str(guest.place))} == {b"outside", b"t"}
    assert (await agent.files.stat(f"{guest.place}/outside")).nlink == 1


# --- where there is a Linux ---


async def test_a_gigabyte_passes_through_without_memory(real: Guest, real_agent: Agent, tmp_path: Path) -> None:
    """Dense enough to be moved for real: 256 MiB of data in a file of 1 GiB."""
    (tmp_path / "t").mkdir()
    with (tmp_path / "t/f").open("wb") as file:
        block = os.urandom(1 << 20)
        for i in range(256):
            file.seek(i << 22)
            file.write(block)
        file.truncate(1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = await real_agent.upload(tmp_path / "t", f"{real.place}/t", uid=real.uid, gid=real.uid)
    assert sent.bytes >= 256 << 20
    await real_agent.download(f"{real.place}/t", tmp_path / "back")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10
    assert real.process is not None
    status = Path(f"/proc/{real.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 64 << 10
    assert (tmp_path / "back/f").stat().st_size == 1 << 30
    await compared("cmp", str(tmp_path / "t/f"), str(tmp_path / "back/f"))


async def test_what_is_no_file_is_left_out(real: Guest, real_agent: Agent, tmp_path: Path) -> None:
    await real_agent.run(["mkfifo", f"{real.place}/fifo"], check=True)
    await real_agent.files.write(f"{real.place}/f", b"")
    assert {e.kind for e in await real_agent.files.list(str(real.place))} == {"fifo", "file"}
    assert (await real_agent.download(str(real.place), tmp_path / "back")).entries == 2


async def test_devices_and_endless_files(real_agent: Agent) -> None:
    assert (await real_agent.files.stat("/dev/null")).kind == "character"
    assert await real_agent.files.read("/dev/zero", limit=10) == bytes(10)
    assert len(await real_agent.files.read("/proc/self/status")) > 100, "a file that says it is empty"


async def test_permission(real: Guest, real_agent: Agent) -> None:
    if real.kind == "user":
        await refused("permission", real_agent.files.read("/etc/shadow"))
        await refused("permission", real_agent.files.write("/etc/firebrick-test", b""))
    else:
        await real_agent.files.write(f"{real.place}/f", b"", uid=12, gid=34)
        found = (real.place / "f").stat()
        assert (found.st_uid, found.st_gid) == (12, 34)


async def test_set_id_bits_of_an_upload(real: Guest, real_agent: Agent, tmp_path: Path) -> None:
    """The guest is the host's to fill: what a tool needs to be set-id there may be."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t/f").touch()
    (tmp_path / "t/f").chmod(0o755)
    await real_agent.upload(tmp_path / "t", f"{real.place}/t", uid=real.uid, gid=real.uid)
    assert stat.S_IMODE((real.place / "t/f").stat().st_mode) == 0o755
