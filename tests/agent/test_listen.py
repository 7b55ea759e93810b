"""Ports in the guest whose connections come to the host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity, Tunnel, stream_from
from firebrick.guest.errors import (
    BadRequestError,
    BusyError,
    ChannelError,
    FileExistsInGuestError,
    FileMissingError,
    StreamClosedError,
)
from firebrick.guest.protocol import Kind
from tests.agent.conftest import Guest
from tests.agent.test_connection import wired

PATIENCE_S = 20


class Client(Protocol):
    """A connection as a program in the guest has it."""

    async def read(self, limit: int) -> bytes: ...
    async def write(self, data: bytes | memoryview) -> None: ...
    async def end(self) -> None: ...
    async def close(self) -> None: ...


class Caller:
    """A connection of this process, which is in the guest as far as the agent knows."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = stream_from(reader, writer)
        self.read, self.write, self.close = stream.read, stream.write, stream.close
        self._writer = writer

    async def end(self) -> None:
        self._writer.write_eof()


@contextlib.asynccontextmanager
async def dialled(guest: Guest, where: int | str, address: str = "127.0.0.1") -> AsyncIterator[Client]:
    """Raises ConnectionRefusedError or FileNotFoundError where nobody listens."""
    client: Client
    if guest.double is not None:
        client = guest.double.dial(where.encode() if isinstance(where, str) else where, address)
    elif isinstance(where, str):
        client = Caller(*await asyncio.open_unix_connection(where))
    else:
        client = Caller(*await asyncio.open_connection(address, where))
    try:
        yield client
    finally:
        await client.close()


async def read_all(client: Client | Tunnel) -> bytes:
    whole = b""
    while piece := await client.read(1 << 16):
        whole += piece
    return whole


async def test_connections_come_to_the_host(guest: Guest, agent: Agent) -> None:
    async with asyncio.timeout(PATIENCE_S), agent.listen(0) as listener:
        assert listener.port
        for word in (b"one", b"two"):
            async with dialled(guest, listener.port) as client:
                connection = await anext(listener)
                await client.write(word)
                await client.end()
                assert await read_all(connection) == word, "the end of one direction"
                await connection.write(word.upper())
                await connection.end()
                assert await read_all(client) == word.upper()


async def test_more_than_the_credit_goes_both_ways(guest: Guest, agent: Agent) -> None:
    data = bytes(range(256)) * 8192
    async with asyncio.timeout(PATIENCE_S), agent.listen(0) as listener, dialled(guest, listener.port or 0) as client:
        connection = await anext(listener)

        async def send(end: Client | Tunnel) -> None:
            await end.write(data)
            await end.end()

        async with asyncio.TaskGroup() as all_ways:
            all_ways.create_task(send(client))
            all_ways.create_task(send(connection))
            there, back = all_ways.create_task(read_all(connection)), all_ways.create_task(read_all(client))
        assert (there.result(), back.result()) == (data, data)


async def test_a_connection_nobody_reads_holds_up_no_other(guest: Guest, agent: Agent) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        agent.listen(0) as listener,
        dialled(guest, listener.port or 0) as stuck,
        dialled(guest, listener.port or 0) as other,
    ):
        first, second = await anext(listener), await anext(listener)
        flood = asyncio.create_task(stuck.write(bytes(16 << 20)))
        await other.write(b"x")
        assert await second.read(10) == b"x"
        assert await agent.ping() < PATIENCE_S
        await first.close()
        await stuck.close()
        await asyncio.gather(flood, return_exceptions=True)


async def test_connections_wait_until_they_are_asked_for(guest: Guest, agent: Agent) -> None:
    async with asyncio.timeout(PATIENCE_S), agent.listen(0) as listener, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dialled(guest, listener.port or 0)) for _ in range(5)]
        for number, client in enumerate(clients):
            await client.write(bytes([number]))
        assert sorted([await (await anext(listener)).read(1) for _ in clients]) == [bytes([n]) for n in range(5)]


async def test_a_cancelled_wait_loses_no_connection(guest: Guest, agent: Agent) -> None:
    async with asyncio.timeout(PATIENCE_S), agent.listen(0) as listener:
        waiting = asyncio.ensure_future(anext(listener))
        await agent.ping()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with dialled(guest, listener.port or 0) as client:
            await client.write(b"x")
            assert await (await anext(listener)).read(1) == b"x"


async def test_the_port_is_free_when_the_listener_has_ended(guest: Guest, agent: Agent) -> None:
    async with asyncio.timeout(PATIENCE_S):
        async with agent.listen(0) as listener, contextlib.AsyncExitStack() as stack:
            port = listener.port or 0
            with pytest.raises(FileExistsInGuestError):
                await stack.enter_async_context(agent.listen(port))
            taken = await stack.enter_async_context(dialled(guest, port))
            connection = await anext(listener)
            queued = await stack.enter_async_context(dialled(guest, port))
            stack.push_async_callback(_is_over, taken, queued)
            waiting = asyncio.ensure_future(anext(listener))
            await asyncio.gather(waiting)
            stack.pop_all()
        with pytest.raises(StreamClosedError):
            await connection.read(1)
        await _is_over(taken, queued)
        await agent.ping()
        with pytest.raises(ConnectionRefusedError):
            async with dialled(guest, port):
                pytest.fail("connected")
        async with agent.listen(port) as again:
            assert again.port == port


async def _is_over(*clients: Client) -> None:
    for client in clients:
        with contextlib.suppress(ConnectionError):
            assert await client.read(1) == b""
        await client.close()


async def test_any_address_of_the_loopback_and_no_other(guest: Guest, agent: Agent) -> None:
    async with asyncio.timeout(PATIENCE_S), agent.listen(0, "127.1.0.9") as listener:
        async with agent.listen(listener.port or 0, "127.1.0.10") as other:
            assert other.port == listener.port, "each address has ports of its own"
        async with dialled(guest, listener.port or 0, "127.1.0.9") as client:
            connection = await anext(listener)
            await connection.write(b"x")
            assert await client.read(1) == b"x"
    for address in ("0.0.0.0", "10.0.2.15", "::", "forge.localhost"):
        with pytest.raises(BadRequestError):
            async with agent.listen(0, address):
                pytest.fail(f"listens on {address}")


async def test_unix_sockets(guest: Guest, agent: Agent) -> None:
    path = str(guest.place / "door")
    async with asyncio.timeout(PATIENCE_S), agent.listen_unix(path) as listener:
        assert listener.port is None
        async with dialled(guest, path) as client:
            await client.write(b"x")
            assert await (await anext(listener)).read(1) == b"x"
    await agent.ping()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        async with dialled(guest, path):
            pytest.fail("connected")
    with pytest.raises(FileMissingError):
        async with agent.listen_unix("/no/such/directory/door"):
            pytest.fail("listens")


async def test_the_number_of_listeners_is_bounded(real_agent: Agent) -> None:
    async with asyncio.timeout(PATIENCE_S), contextlib.AsyncExitStack() as stack:
        with pytest.raises(BusyError):
            for _ in range(1000):
                await stack.enter_async_context(real_agent.listen(0))
        assert await real_agent.ping() >= 0


async def test_a_lost_connection_ends_what_listens(guest: Guest) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ChannelError):
            async with guest.connect() as agent, agent.listen(0) as listener:
                port = listener.port or 0
                waiting = asyncio.ensure_future(anext(listener))
                await agent.ping()
                agent.lose(EOFError("the test says so"))
                await waiting
        async with guest.connect() as agent:
            await agent.ping()
            with pytest.raises(ConnectionRefusedError):
                async with dialled(guest, port):
                    pytest.fail("connected")


async def test_what_listens_goes_on_after_a_snapshot_of_its_machine(guest: Guest) -> None:
    identity = Identity.fresh("machine")
    async with (
        asyncio.timeout(PATIENCE_S),
        Agent.connect(await guest.stream(), identity, timeout=10) as agent,
        agent.listen(0) as listener,
    ):
        waiting = asyncio.ensure_future(anext(listener))
        await agent.ping()
        await agent.quiesce()
        await agent.part()
        await agent.rejoin(await guest.stream(), identity)
        await agent.resume()
        async with dialled(guest, listener.port or 0) as client:
            await client.write(b"x")
            assert await (await waiting).read(1) == b"x"


async def test_a_copy_of_the_machine_does_not_listen(guest: Guest) -> None:
    async with asyncio.timeout(PATIENCE_S), guest.connect() as agent, agent.listen(0) as listener:
        port = listener.port or 0
        await agent.quiesce()
        await agent.part()
        async with guest.connect("copy") as copy:
            await copy.ping()
            with pytest.raises(ConnectionRefusedError):
                async with dialled(guest, port):
                    pytest.fail("connected")


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.EOF])
@pytest.mark.parametrize("early", [message.Listen(port=0), message.Accept(listener=1)], ids=["listen", "accept"])
async def test_data_before_a_connection_is_there_breaks_the_rules(
    guest: Guest, kind: Kind, early: message.Request
) -> None:
    async with wired(guest) as wire:
        await wire.say(message.Listen(port=0), 1)
        await wire.heard(message.Listening)
        await wire.say(early, 2)
        await wire.stream.write(protocol.HEADER.pack(0, 2, kind, 0, 0))
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                await wire.frame()
    if guest.double is not None:
        assert len(guest.double.violations) == 1
        guest.double.violations.clear()


async def test_what_is_no_listener_takes_no_connection(guest: Guest) -> None:
    async with wired(guest) as wire:
        await wire.say(message.Accept(listener=7), 1)
        assert (await wire.heard(message.Error)).code == "not_found"
        await wire.say(message.Listen(), 2)
        assert (await wire.heard(message.Error)).code == "bad_request"
