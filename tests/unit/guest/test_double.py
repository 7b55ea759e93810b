"""The double is strict with hosts, and its shell and disk do what the real ones do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import GuestDouble, MemoryDisk, Refusal, Task
from firebrick.guest.protocol import Kind
from tests.unit.guest.guests import guest_double

IDENTITY = protocol.control(0, message.SetIdentity(entropy=bytes(64), realtime_ns=0, hostname="h", machine_id="0" * 32))
WRITE = protocol.control(1, message.Write(path=b"/tmp/f", mode=None, uid=None, gid=None, parents=False, append=False))
STAT = protocol.control(1, message.Stat(path=b"/", follow=True))
LISTEN = protocol.control(1, message.Listen(port=0))
EXEC = protocol.control(
    1,
    message.Exec(
        argv=(b"sleep", b"9"),
        env={},
        clear_env=False,
        cwd=None,
        user=None,
        stdin=False,
        pty=None,
        timeout_ms=None,
        detach=False,
        merge=False,
    ),
)

VIOLATIONS = {
    "data_beyond_credit": WRITE + protocol.data(1, 0, bytes(1 << 18)) + protocol.data(1, 0, b"x"),
    "data_after_eof": WRITE + protocol.eof(1, 0) + protocol.data(1, 0, b"x"),
    "data_without_stdin": EXEC + protocol.data(1, 0, b"x"),
    "data_on_output": WRITE + protocol.data(1, 1, b"x"),
    "data_opens": protocol.data(1, 0, b"x"),
    "id_left_out": protocol.control(2, message.Stat(path=b"/", follow=True)),
    "signal_opens": protocol.control(1, message.Signal(number=9, group=True)),
    "two_requests": EXEC + EXEC,
    "signal_for_a_write": WRITE + protocol.control(1, message.Signal(number=9, group=True)),
    "data_for_a_listener": LISTEN + protocol.data(1, 0, b"x"),
    "data_before_a_connection": LISTEN + protocol.control(2, message.Accept(listener=1)) + protocol.data(2, 0, b"x"),
    "end_before_a_connection": LISTEN + protocol.control(2, message.Accept(listener=1)) + protocol.eof(2, 0),
    "credit_for_input": WRITE + protocol.credit(1, 0, 1),
    "too_much_credit": EXEC + protocol.credit(1, 1, 0xFFFFFFFF),
    "message_of_a_guest": protocol.control(0, message.Quiesced()),
    "little_entropy": protocol.control(
        0, message.SetIdentity(entropy=b"x", realtime_ns=0, hostname="h", machine_id="0" * 32)
    ),
    "frame_while_quiesced": protocol.control(0, message.Quiesce()) + STAT,
    "garbage": b"\xff" * 20,
    "unknown_message": protocol.HEADER.pack(1, 0, Kind.CONTROL, 0, 0) + b"\x80",
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_what_a_host_does_wrong_is_written_down(name: str) -> None:
    double = GuestDouble()
    host = double.connect()
    with contextlib.suppress(OSError):
        await host.write(IDENTITY + VIOLATIONS[name])
    async with asyncio.timeout(10):
        while await host.read(1 << 16):
            pass
    assert len(double.violations) == 1
    await double.close()


async def test_frames_for_what_has_ended_are_no_violation() -> None:
    double = GuestDouble()
    host = double.connect()
    await host.write(IDENTITY + STAT)
    decoder, frames = protocol.FrameDecoder(), []
    while not any(f.stream == 1 for f in frames):
        frames += decoder.feed(await host.read(1 << 16))
    await host.write(protocol.credit(1, 1, 5) + protocol.data(1, 0, b"x") + protocol.eof(1, 0) + protocol.reset(1))
    await host.write(protocol.control(0, message.Ping(token=1)))
    frames.clear()
    while not frames:
        frames += decoder.feed(await host.read(1 << 16))
    assert frames[0].stream == 0
    assert double.violations == []
    await double.close()


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with guest_double() as double, Agent.connect(double.connect(), Identity.fresh("h"), timeout=10) as agent:
        yield agent


@pytest.mark.parametrize(
    ("script", "out", "code"),
    [
        ("echo a; echo b\necho c", "a\nb\nc\n", 0),
        ("true && echo yes || echo no", "yes\n", 0),
        ("false && echo yes || echo no", "no\n", 0),
        ("false; echo $?", "1\n", 0),
        ("echo 'a  b' \"c $HOME\" d\\ e", "a  b c /root d e\n", 0),
        ("A=1; B=2 env > /dev/null; echo ${A}$B", "1\n", 0),
        ("export A=x; sh -c 'echo $A'", "x\n", 0),
        ("echo x > /tmp/f; echo y >> /tmp/f; cat < /tmp/f", "x\ny\n", 0),
        ("cd /tmp && pwd", "/tmp\n", 0),
        ("exit 7; echo never", "", 7),
        ("no-such-thing", "", 127),
        ("# a comment\necho x # another", "x\n", 0),
        ("echo gone 2>&1 > /dev/null", "", 0),
    ],
)
async def test_the_shell(agent: Agent, script: str, out: str, code: int) -> None:
    done = await agent.run(["sh", "-c", script])
    assert (done.stdout.decode(), done.status.code) == (out, code)


async def test_the_shell_stops_where_it_was_told_to(agent: Agent) -> None:
    assert (await agent.run(["sh", "-e", "-c", "echo a; false; echo b"])).stdout == b"a\n"
    assert (await agent.run(["sh", "-ec", "false || echo a; echo b"])).stdout == b"a\nb\n"


async def test_the_shell_kills_itself(agent: Agent) -> None:
    assert (await agent.run(["sh", "-c", "kill -9 $$"])).status.signal == 9
    assert (await agent.run(["sh", "-c", "kill -TERM $$"])).status.signal == 15


async def test_what_the_shell_cannot_do_it_says(agent: Agent) -> None:
    done = await agent.run(["sh", "-c", "echo a | cat"])
    assert (done.status.code, b"no pipes" in done.stderr) == (2, True)


async def test_a_program_of_a_test(agent: Agent) -> None:
    async def refuse(task: Task) -> int:
        raise Refusal("no_space", "the disk is full")

    double = GuestDouble(programs={"refuse": refuse})
    async with Agent.connect(double.connect(), Identity.fresh("h"), timeout=10) as agent:
        assert (await agent.run(["sh", "-c", "refuse"])).stderr == b"refuse: the disk is full\n"
    await double.close()


def test_links_on_the_disk() -> None:
    disk = MemoryDisk.furnished()
    disk.open(b"/tmp/f", parents=False, truncate=True).content.write(0, b"x")
    disk.link(b"/tmp/g", b"/tmp/f")
    assert disk.find(b"/tmp/g") is disk.find(b"/tmp/f")
    assert disk.find(b"/tmp/f").entry(b"f").nlink == 2
    disk.remove(b"/tmp/f", recursive=False, missing_ok=False)
    assert disk.find(b"/tmp/g").entry(b"g").nlink == 1
    for name, target in ((b"/a", b"/b"), (b"/b", b"/a")):
        disk.put(name, type(disk.root)("symlink", 0o777, target=target))
    with pytest.raises(Refusal, match="too many"):
        disk.find(b"/a")
    disk.put(b"/rel", type(disk.root)("symlink", 0o777, target=b"tmp/../tmp/g"))
    assert disk.find(b"/rel") is disk.find(b"/tmp/g")


def test_a_saved_disk_is_a_copy() -> None:
    disk = MemoryDisk.furnished()
    disk.open(b"/tmp/f", parents=False, truncate=True).content.write(1 << 30, b"end")
    again = MemoryDisk.load(disk.save())
    assert again.find(b"/tmp/f").content.read(1 << 30, 10) == b"end"
    again.open(b"/tmp/f", parents=False, truncate=True)
    assert disk.find(b"/tmp/f").content.size == (1 << 30) + 3


def test_a_directory_moves_with_what_is_in_it():
    disk = MemoryDisk.furnished()
    disk.open(b"/a/x", parents=True, truncate=True)
    disk.mkdir(b"/full/y", 0o755, parents=True)
    disk.mkdir(b"/empty", 0o755, parents=False)
    disk.move(b"/a", b"/b", overwrite=False)
    assert disk.find(b"/b/x").kind == "file"
    with pytest.raises(Refusal, match="not empty"):
        disk.move(b"/b", b"/full", overwrite=True)
    disk.move(b"/b", b"/empty", overwrite=True)
    assert disk.find(b"/empty/x").kind == "file"
