"""Ports inside the machine whose connections come to the host."""

import asyncio
import contextlib

import pytest

from firebrick.guest.double import Task
from firebrick.guest.errors import ChannelError
from firebrick.machine import Machine
from tests.conformance.conftest import Way

PATIENCE_S = 60
CALL = """
use IO::Socket::INET;
my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or exit 7;
local $/; print $s <STDIN>; $s->flush; shutdown($s, 1); print <$s>;
"""


async def _perl(task: Task) -> int:
    """What the script does, for machines without a Perl."""
    try:
        end = task.dial(int(task.argv[-1]), task.argv[-2].decode())
    except ConnectionRefusedError:
        return 7
    while piece := await task.read():
        await end.write(piece)
    await end.end()
    while piece := await end.read(1 << 16):
        await task.out(piece)
    return 0


async def call(m: Machine, address: str, port: int, said: bytes) -> bytes | None:
    """What the other side answers to `said`; None where nobody listens."""
    if m.pid is None:
        m._vm.guest.programs["perl"] = _perl  # type: ignore[attr-defined]
    done = await m.run(["perl", "-e", CALL, address, str(port)], input=said, limit=1 << 22)
    assert done.status.code in (0, 7), done.stderr
    return done.stdout if done.status.ok else None


async def echo(listener, times: int) -> None:
    """Answer `times` callers with what they say, in capitals."""
    for _ in range(times):
        connection = await anext(listener)
        with contextlib.suppress(BrokenPipeError):
            while piece := await connection.read(1 << 16):
                await connection.write(piece.upper())
            await connection.end()


async def test_a_port_of_the_host_inside(m: Machine):
    said = bytes(range(97, 123)) * 40_000
    async with asyncio.timeout(PATIENCE_S), m.listen(0, "127.1.0.7") as listener:
        answering = asyncio.create_task(echo(listener, 2))
        assert await call(m, "127.1.0.7", listener.port, b"hello") == b"HELLO"
        assert await call(m, "127.1.0.7", listener.port, said) == said.upper()
        await answering
        port = listener.port
    assert await call(m, "127.1.0.7", port, b"") is None


async def test_a_low_port_on_the_usual_address(m: Machine):
    async with asyncio.timeout(PATIENCE_S), m.listen(80) as listener:
        answering = asyncio.create_task(echo(listener, 1))
        assert await call(m, "127.0.0.1", 80, b"x") == b"X"
        await answering


async def test_what_listens_outlasts_a_snapshot_and_is_not_in_a_copy(way: Way):
    async with asyncio.timeout(PATIENCE_S * 2), way.start() as m, m.listen(8080) as listener, m.fork() as copy:
        assert await call(copy, "127.0.0.1", 8080, b"x") is None
        async with copy.listen(8080) as again:
            answering = asyncio.create_task(echo(again, 1))
            assert await call(copy, "127.0.0.1", 8080, b"copy") == b"COPY"
            await answering
        answering = asyncio.create_task(echo(listener, 1))
        assert await call(m, "127.0.0.1", 8080, b"source") == b"SOURCE"
        await answering


async def test_a_machine_that_ends_ends_what_waits(m: Machine):
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ChannelError):
            async with m.listen(0) as listener:
                waiting = asyncio.ensure_future(anext(listener))
                await m.agent.ping()
                await m.kill()
                await waiting
