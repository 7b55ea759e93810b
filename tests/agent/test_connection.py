"""The connection itself: greeting, identity, freezing, ports, and hosts that break the rules."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, ByteStream, Identity, Put
from firebrick.guest.errors import AgentError, ChannelError
from firebrick.guest.execution import exec_request
from firebrick.guest.protocol import Frame, FrameDecoder, Kind
from tests.agent.conftest import Guest

IDENTITY = message.SetIdentity(
    entropy=bytes(64), realtime_ns=1_795_000_000_000_000_000, hostname="h", machine_id="0" * 32
)
GUEST = protocol.Messages[message.Message](message.FromGuestConnection | message.FromGuestStream, "in a test")


class Wire:
    """The protocol by hand."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def say(self, record: message.Message, stream: int = 0) -> None:
        await self.stream.write(protocol.control(stream, record))

    async def frame(self) -> Frame:
        while not self._frames:
            piece = await self.stream.read(1 << 16)
            if not piece:
                raise EOFError
            self._frames += self._decoder.feed(piece)
        return self._frames.pop(0)

    async def heard(self, kind: type[message.Message]) -> message.Message:
        """The next message of a type; what comes before it is passed over."""
        while True:
            frame = await self.frame()
            if frame.kind == Kind.CONTROL and isinstance(record := GUEST.decode(frame.payload), kind):
                return record


@contextlib.asynccontextmanager
async def wired(guest: Guest, *, named: bool = True) -> object:  # type: ignore[misc]
    stream = await guest.stream()
    wire = Wire(stream)
    async with asyncio.timeout(20):
        await wire.heard(message.Hello)
        if named:
            await wire.say(IDENTITY)
            await wire.heard(message.IdentityDone)
        try:
            yield wire
        finally:
            await stream.close()


async def test_hello_comes_unasked_and_asked(guest: Guest) -> None:
    async with wired(guest, named=False) as wire:
        await wire.say(message.HelloRequest())
        hello = await wire.heard(message.Hello)
        assert (hello.version, hello.minimum, hello.quiesced) == (1, 1, False)


async def test_nothing_is_done_without_an_identity(guest: Guest) -> None:
    async with wired(guest, named=False) as wire:
        for number, request in enumerate(
            [message.Stat(path=b"/", follow=True), message.Read(path=b"/etc/passwd", offset=0, limit=None)], start=1
        ):
            await wire.say(request, number)
            assert (await wire.heard(message.Error)).code == "no_identity"


async def test_ping(agent: Agent) -> None:
    assert min([await agent.ping() for _ in range(20)]) < 0.5


async def test_usage(agent: Agent) -> None:
    usage = await agent.usage()
    assert usage.scratch_total_bytes >= usage.scratch_used_bytes > 0
    assert usage.cpu_s >= 0


EARLY = exec_request(["cat"], {"stdin": True, "before": [Put(path=b"/tmp/early", data=b"")]})
WRONG = {
    "data_before_the_start": protocol.control(1, EARLY) + protocol.data(1, 0, b"x"),
    "garbage": b"\xff" * 64,
    "unknown_kind": protocol.HEADER.pack(0, 1, 9, 0, 0),
    "too_long": protocol.HEADER.pack(1 << 30, 1, Kind.DATA, 0, 0),
    "data_on_connection": protocol.HEADER.pack(1, 0, Kind.DATA, 0, 0) + b"x",
    "data_for_unopened_stream": protocol.data(7, 0, b"x"),
    "credit_for_unopened_stream": protocol.credit(7, 1, 5),
    "unknown_message": protocol.HEADER.pack(6, 0, Kind.CONTROL, 0, 0) + b"\x81\xa4type",
    "message_of_a_guest": protocol.control(0, message.Quiesced()),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_host_that_breaks_the_rules_loses_its_connection_only(guest: Guest, name: str) -> None:
    async with wired(guest) as wire:
        await wire.stream.write(WRONG[name])
        with pytest.raises((EOFError, OSError)):
            while True:
                await wire.frame()
    if guest.double is not None:
        assert len(guest.double.violations) == 1
        guest.double.violations.clear()
    async with guest.connect() as agent:
        assert (await agent.run(["echo", "alive"])).stdout == b"alive\n"


async def test_data_beyond_the_credit_ends_the_connection(guest: Guest) -> None:
    async with wired(guest) as wire:
        await wire.say(
            message.Exec(
                argv=(b"sleep", b"1000"),
                env={},
                clear_env=False,
                cwd=None,
                user=None,
                stdin=True,
                pty=None,
                timeout_ms=None,
                detach=False,
                merge=False,
            ),
            1,
        )
        await wire.heard(message.Started)
        writing = asyncio.create_task(wire.stream.write(protocol.data(1, 0, bytes(1 << 18)) * 3))
        with pytest.raises((EOFError, OSError)):
            while True:
                await wire.frame()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    if guest.double is not None:
        assert len(guest.double.violations) == 1
        guest.double.violations.clear()
    async with guest.connect() as agent:
        assert await agent.ping() < 10


async def test_frames_for_ended_streams_are_ignored(guest: Guest) -> None:
    async with wired(guest) as wire:
        await wire.say(message.Stat(path=b"/", follow=True), 1)
        await wire.heard(message.Entry)
        await wire.stream.write(
            protocol.credit(1, 1, 5) + protocol.data(1, 0, b"x") + protocol.eof(1, 0) + protocol.reset(1)
        )
        await wire.say(message.Signal(number=15, group=True), 1)
        await wire.say(message.Ping(token=5))
        assert (await wire.heard(message.Pong)).token == 5


async def test_the_agent_keeps_to_its_credit(guest: Guest) -> None:
    """Without a grant exactly 256 KiB come, and what else is asked for is answered."""
    async with wired(guest) as wire:
        request = message.Exec(
            argv=(b"yes",),
            env={},
            clear_env=False,
            cwd=None,
            user=None,
            stdin=False,
            pty=None,
            timeout_ms=None,
            detach=False,
            merge=False,
        )
        await wire.say(request, 1)
        size = 0
        while size < protocol.INITIAL_CREDIT:
            frame = await wire.frame()
            size += len(frame.payload) if frame.kind == Kind.DATA else 0
        await wire.say(message.Ping(token=1))
        frame = await wire.frame()
        assert GUEST.decode(frame.payload) == message.Pong(token=1)
        await wire.stream.write(protocol.credit(1, 1, 10))
        assert len((await wire.frame()).payload) == 10
        await wire.stream.write(protocol.reset(1))
        while True:
            frame = await wire.frame()
            if frame.kind == Kind.CONTROL:
                assert GUEST.decode(frame.payload).code == "reset"
                break


async def test_quiesce_and_resume(guest: Guest, agent: Agent) -> None:
    async with agent.exec(["yes"]) as process:
        await process.stdout.read()
        async with asyncio.timeout(20):
            await agent.quiesce()
            late = asyncio.create_task(agent.run(["echo", "late"]))
            await asyncio.sleep(0.05)
            assert not late.done()
            await agent.resume()
            assert (await late).stdout == b"late\n"
        assert await process.stdout.read()


async def test_a_lost_connection_of_a_quiesced_guest_is_continued(guest: Guest) -> None:
    """What the source of a snapshot goes through where taking it costs every connection."""
    identity = Identity.fresh("machine")
    async with (
        Agent.connect(await guest.stream(), identity, timeout=10) as agent,
        agent.exec(["cat"], stdin=True) as cat,
    ):
        await cat.write(b"before")
        assert await cat.stdout.read() == b"before"
        async with asyncio.timeout(20):
            await agent.quiesce()
            await agent.part()
            with pytest.raises(ChannelError):
                await agent.rejoin(await guest.stream(), Identity.fresh("another"))
            assert agent.parted
            if guest.double is not None:
                assert guest.double.violations.pop() == "there is nothing for this host to continue"
            await agent.rejoin(await guest.stream(), identity)
            await agent.resume()
            await cat.write(b"after")
            assert await cat.stdout.read() == b"after"
            assert (await agent.run(["echo", "new"])).stdout == b"new\n"


async def test_a_guest_that_is_held_does_nothing_for_a_stranger(real: Guest) -> None:
    async with real.connect() as agent, agent.exec(["cat"], stdin=True):
        await agent.quiesce()
        await agent.part()
        async with wired(real, named=False) as wire:
            await wire.say(message.Stat(path=b"/", follow=True), 1)
            assert (await wire.heard(message.Error)).code == "no_identity"
            await wire.say(message.HelloRequest())
            assert (await wire.heard(message.Hello)).quiesced


async def test_a_new_host_thaws_with_an_identity(guest: Guest) -> None:
    """What a fork goes through: the old host is gone while the guest was frozen, a new one comes."""
    async with wired(guest) as wire:
        await wire.say(message.Quiesce())
        await wire.heard(message.Quiesced)
    async with wired(guest, named=False) as wire:
        await wire.say(message.HelloRequest())
        assert (await wire.heard(message.Hello)).quiesced
        await wire.say(IDENTITY)
        await wire.heard(message.IdentityDone)
        await wire.say(message.HelloRequest())
        assert not (await wire.heard(message.Hello)).quiesced


async def test_ports(real_agent: Agent) -> None:
    server = await asyncio.start_server(_upper, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with real_agent.connect_port(port) as tunnel:
            data = bytes(range(97, 123)) * 40_000
            writing = asyncio.create_task(_write_all(tunnel, data))
            got = b""
            while piece := await tunnel.read(1 << 16):
                got += piece
            await writing
            assert got == data.upper()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(AgentError):
            async with real_agent.connect_port(closed.getsockname()[1]):
                pytest.fail("connected to a port nobody listens on")


async def test_unix_sockets(real: Guest, real_agent: Agent) -> None:
    server = await asyncio.start_unix_server(_upper, real.place / "s")
    (real.place / "s").chmod(0o777)
    async with server, real_agent.connect_unix(str(real.place / "s")) as tunnel:
        await tunnel.write(b"hello")
        assert await tunnel.read(100) == b"HELLO"
    with pytest.raises(AgentError):
        async with real_agent.connect_unix(str(real.place / "none")):
            pytest.fail("connected")


async def _upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece.upper())
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _write_all(tunnel: object, data: bytes) -> None:
    await tunnel.write(data)  # type: ignore[attr-defined]
    await tunnel.end()  # type: ignore[attr-defined]


async def test_an_agent_that_dies_is_a_channel_error(real: Guest) -> None:
    async with real.connect() as agent:
        running = asyncio.create_task(agent.run(["sleep", "1000"]))
        await agent.ping()
        assert real.process is not None
        real.process.kill()
        with pytest.raises(ChannelError):
            await running
        with pytest.raises(ChannelError):
            await agent.ping()
