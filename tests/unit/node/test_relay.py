"""Ports of a guest that lead elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import GuestDouble, pipe
from firebrick.guest.double.pipe import PipeEnd
from firebrick.node.relay import GuestPort, relay
from tests.unit.guest.guests import guest_double

PATIENCE_S = 20


@pytest.fixture
async def guest() -> AsyncIterator[GuestDouble]:
    async with guest_double() as double:
        yield double


@pytest.fixture
async def agent(guest: GuestDouble) -> AsyncIterator[Agent]:
    async with asyncio.timeout(PATIENCE_S), Agent.connect(guest.connect(), Identity.fresh("x"), timeout=10) as agent:
        yield agent


@dataclass
class Server:
    """A target that is here. `open_now` counts its connections."""

    answer: Callable[[PipeEnd], Awaitable[None]]
    open_now: int = 0
    most: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PipeEnd]:
        ours, theirs = pipe()
        task = asyncio.ensure_future(self.answer(theirs))
        self.open_now += 1
        self.most = max(self.most, self.open_now)
        try:
            yield ours
        finally:
            self.open_now -= 1
            await ours.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def read_all(end: PipeEnd) -> bytes:
    whole = b""
    while piece := await end.read(1 << 16):
        whole += piece
    return whole


async def upper(end: PipeEnd) -> None:
    """Answer the whole question, once it is complete."""
    await end.write((await read_all(end)).upper())
    await end.end()


async def test_both_directions_end_one_by_one(guest: GuestDouble, agent: Agent) -> None:
    server = Server(upper)
    async with relay(agent, server, address="127.1.0.1", port=80) as port:
        assert port == 80
        client = guest.dial(80, "127.1.0.1")
        await client.write(b"question")
        await client.end()
        assert await read_all(client) == b"QUESTION"
    assert server.open_now == 0


async def test_much_goes_through(guest: GuestDouble, agent: Agent) -> None:
    data = bytes(range(97, 123)) * 80_000
    async with relay(agent, Server(upper)) as port:
        client = guest.dial(port)
        sending = asyncio.create_task(client.write(data))
        await sending
        await client.end()
        assert await read_all(client) == data.upper()


async def test_another_guest_is_reached(guest: GuestDouble, agent: Agent) -> None:
    other = GuestDouble()

    async def serve(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> None:
        while piece := await read():
            await write(piece.upper())

    other.ports[6379] = serve
    async with Agent.connect(other.connect(), Identity.fresh("other"), timeout=10) as far:
        async with relay(agent, GuestPort(far, 6379), port=6379):
            client = guest.dial(6379)
            await client.write(b"ping")
            assert await client.read(10) == b"PING"
            await client.end()
            assert await read_all(client) == b""
        async with relay(agent, GuestPort(far, 1)) as port:
            assert await read_all(guest.dial(port)) == b"", "nobody listens there"
            assert await agent.ping() >= 0
    await other.close()
    assert other.violations == []


async def test_an_early_answer_arrives_though_the_question_goes_on(guest: GuestDouble, agent: Agent) -> None:
    async def refuse(end: PipeEnd) -> None:
        await end.read(1)
        await end.write(b"too large")
        await end.close()

    async with relay(agent, Server(refuse)) as port:
        client = guest.dial(port)
        sending = asyncio.create_task(client.write(bytes(4 << 20)))
        assert await read_all(client) == b"too large"
        await asyncio.gather(sending, return_exceptions=True)


async def test_no_more_than_the_limit_are_open(guest: GuestDouble, agent: Agent) -> None:
    server = Server(upper)
    async with relay(agent, server, limit=2) as port:
        clients = [guest.dial(port) for _ in range(6)]
        for _ in range(20):
            await agent.ping()
        assert server.open_now == 2
        for number, client in enumerate(clients):
            await client.write(f"n{number}".encode())
            await client.end()
        assert [await read_all(client) for client in clients] == [f"N{n}".encode() for n in range(6)]
    assert server.most == 2


async def test_the_end_of_a_relay_closes_what_is_open(guest: GuestDouble, agent: Agent) -> None:
    server = Server(upper)
    async with relay(agent, server) as port:
        client = guest.dial(port)
        await client.write(b"x")
        while not server.open_now:
            await agent.ping()
    assert server.open_now == 0
    assert await read_all(client) == b""
    await agent.ping()
    with pytest.raises(ConnectionRefusedError):
        guest.dial(port)


async def test_a_lost_guest_ends_a_relay_quietly(guest: GuestDouble, agent: Agent) -> None:
    server = Server(upper)
    async with relay(agent, server) as port:
        client = guest.dial(port)
        await client.write(b"x")
        while not server.open_now:
            await agent.ping()
        agent.lose(EOFError("the test says so"))
        while server.open_now:
            await asyncio.sleep(0)
