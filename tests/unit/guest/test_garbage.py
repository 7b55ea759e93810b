"""A guest that sends anything at all: its connection ends, or it does not; nothing hangs, nothing else is raised, little is held."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import pipe
from firebrick.guest.errors import ChannelError, GuestError
from firebrick.guest.protocol import HEADER, Kind
from firebrick.guest.stream import ByteStream
from tests.unit.guest.peer import EXIT, HELLO, Peer, connected

BOUND_S = 20

records = st.sampled_from(
    [
        HELLO,
        EXIT,
        message.IdentityDone(boot_id="b"),
        message.Pong(token=1),
        message.Quiesced(),
        message.Resumed(),
        message.Started(pid=2),
        message.Connected(),
        message.Listening(port=1),
        message.Done(),
        message.Error(code="io", message="x", errno=None),
        message.Fatal(message="y"),
    ]
)
streams = st.one_of(st.integers(0, 9), st.integers(0, (1 << 32) - 1))
frames = st.one_of(
    st.builds(lambda record, stream: protocol.control(stream, record), records, streams),
    st.builds(protocol.data, streams, st.integers(0, 3), st.binary(max_size=3000)),
    st.builds(protocol.credit, streams, st.integers(0, 3), st.integers(0, (1 << 32) - 1)),
    st.builds(protocol.eof, streams, st.integers(0, 255)),
    st.builds(protocol.reset, streams),
    st.builds(
        lambda length, stream, kind, channel, reserved, payload: (
            HEADER.pack(length, stream, kind, channel, reserved) + payload
        ),
        st.one_of(st.integers(0, 64), st.integers(0, (1 << 32) - 1)),
        streams,
        st.integers(0, 255),
        st.integers(0, 255),
        st.sampled_from([0, 0, 0, 1, 65535]),
        st.binary(max_size=64),
    ),
    st.binary(max_size=200),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Frames that make sense, with some bytes that do not."""
    raw = bytearray(b"".join(draw(st.lists(frames, min_size=1, max_size=12))))
    for _ in range(draw(st.integers(0, 4))):
        if raw:
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


async def use(agent: Agent) -> None:
    """All that waits for a guest."""
    calls = (
        agent.run(["x"]),
        agent.ping(),
        agent.usage(),
        agent.files.read("/x"),
        agent.files.list("/x"),
        agent.files.stat("/x"),
        one_connection(agent),
    )
    done = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in done:
        assert not isinstance(outcome, BaseException) or isinstance(outcome, GuestError), repr(outcome)


async def one_connection(agent: Agent) -> bytes:
    async with agent.listen(0) as listener:
        return await (await anext(listener)).read(100)


async def swallow(stream: ByteStream) -> None:
    with contextlib.suppress(OSError):
        while await stream.read(1 << 16):
            pass


async def flooded(garbage: bytes, pieces: list[int]) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(BOUND_S), connected() as (agent, peer):
        using = asyncio.create_task(use(agent))
        swallowing = asyncio.create_task(swallow(peer.stream))
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            at = 0
            for size in pieces:
                await peer.raw(garbage[at : at + size])
                at += size
            await peer.raw(garbage[at:])
        await peer.stream.close()
        await using
        with pytest.raises(ChannelError):
            await agent.ping()
        await swallowing
    assert asyncio.all_tasks() - before == set()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(), st.lists(st.integers(1, 40), max_size=6))
def test_whatever_it_sends_in_the_middle_of_everything(garbage: bytes, pieces: list[int]) -> None:
    asyncio.run(flooded(garbage, pieces))


async def greeted(garbage: bytes) -> None:
    host, guest = pipe()
    peer = Peer(guest)
    swallowing = asyncio.create_task(swallow(guest))
    async with asyncio.timeout(BOUND_S):
        await peer.raw(garbage)
        await guest.close()
        with pytest.raises((GuestError, TimeoutError)):
            async with Agent.connect(host, Identity.fresh("x"), timeout=1):
                raise ChannelError("it was greeted")
        await swallowing


@settings(max_examples=150, deadline=None)
@given(mutated())
def test_whatever_it_sends_instead_of_a_hello(garbage: bytes) -> None:
    asyncio.run(greeted(garbage))


FLOODS = {
    "data nobody asked for": protocol.data(1, 1, bytes(protocol.MAX_PAYLOAD)),
    "pongs": protocol.control(0, message.Pong(token=1)) * 1000,
    "hellos": protocol.control(0, HELLO) * 1000,
    "credit": protocol.credit(1, 0, 1) * 1000,
    "the beginning of a long frame": HEADER.pack(protocol.MAX_PAYLOAD, 1, Kind.DATA, 1, 0),
    "zeros": bytes(1 << 16),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_a_flood_costs_little_memory(flood: bytes) -> None:
    tracemalloc.start()
    try:
        async with asyncio.timeout(BOUND_S), connected() as (agent, peer):
            running = asyncio.create_task(agent.run(["x"]))
            swallowing = asyncio.create_task(swallow(peer.stream))
            await asyncio.sleep(0)
            tracemalloc.reset_peak()
            with contextlib.suppress(OSError):
                for _ in range(30 if len(flood) > 100 else 1):
                    await peer.raw(flood)
            await peer.stream.close()
            await asyncio.gather(running, swallowing, return_exceptions=True)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
