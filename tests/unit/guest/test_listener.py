"""What a client that listens does with a guest that cannot, will not, or lies."""

from __future__ import annotations

import asyncio

import pytest

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import GuestDouble
from firebrick.guest.errors import BusyError, ChannelError, FileMissingError, UnsupportedError
from firebrick.guest.protocol import Kind
from tests.unit.guest.peer import Peer, connected


async def listened(peer: Peer) -> None:
    """Answer the first request of the host."""
    assert isinstance(await peer.heard(), message.Listen)
    await peer.say(message.Listening(port=80), 1)


async def test_an_agent_of_an_earlier_release_is_not_asked() -> None:
    double = GuestDouble()
    double.features = ()
    async with Agent.connect(double.connect(), Identity.fresh("x"), timeout=10) as agent:
        with pytest.raises(UnsupportedError, match="earlier release"):
            async with agent.listen(80):
                pytest.fail("listens")
        await agent.ping()
    await double.close()
    assert double.violations == []


async def test_a_refused_wait_can_be_repeated() -> None:
    async with connected() as (agent, peer):
        answering = asyncio.create_task(listened(peer))
        async with agent.listen(80) as listener:
            await answering
            waiting = asyncio.ensure_future(anext(listener))
            assert await peer.heard() == message.Accept(listener=1)
            await peer.say(message.Error(code="busy", message="no", errno=None), 2)
            with pytest.raises(BusyError):
                await waiting
            again = asyncio.ensure_future(anext(listener))
            assert await peer.heard() == message.Accept(listener=1)
            await peer.say(message.Connected(), 3)
            await peer.raw(protocol.data(3, 1, b"x"), protocol.eof(3, 1))
            connection = await again
            assert (await connection.read(10), await connection.read(10)) == (b"x", b"")


async def test_what_is_open_is_given_up_with_the_listener() -> None:
    async with connected() as (agent, peer):
        answering = asyncio.create_task(listened(peer))
        async with agent.listen(80) as listener:
            await answering
            taking = asyncio.ensure_future(anext(listener))
            await peer.heard()
            await peer.say(message.Connected(), 2)
            await taking
            waiting = asyncio.ensure_future(anext(listener))
            await peer.heard()
            waiting.cancel()
        resets = [await peer.frame() for _ in range(3)]
        assert {(frame.kind, frame.stream) for frame in resets} == {(Kind.RESET, n) for n in (1, 2, 3)}


async def test_a_listener_that_has_ended_in_the_guest_says_so() -> None:
    async with connected() as (agent, peer):
        answering = asyncio.create_task(listened(peer))
        async with agent.listen(80) as listener:
            await answering
            waiting = asyncio.ensure_future(anext(listener))
            await peer.heard()
            await peer.say(message.Error(code="not_found", message="nothing listens", errno=None), 2)
            with pytest.raises(FileMissingError):
                await waiting


LIES = {
    "connected for a listener": protocol.control(1, message.Connected()),
    "listening twice": protocol.control(1, message.Listening(port=80)),
    "data of a listener": protocol.data(1, 1, b"x"),
    "listening for a wait": protocol.control(2, message.Listening(port=80)),
    "errors of a wait": protocol.data(2, 2, b"x"),
    "a connection nobody asked for": protocol.control(3, message.Connected()),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_guest_that_lies_loses_its_connection(lie: bytes) -> None:
    async with connected() as (agent, peer):
        answering = asyncio.create_task(listened(peer))
        with pytest.raises(ChannelError):
            async with agent.listen(80) as listener:
                await answering
                waiting = asyncio.ensure_future(anext(listener))
                await peer.heard()
                await peer.raw(lie)
                await waiting
