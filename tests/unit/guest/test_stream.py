"""The byte streams: whole writes, back-pressure, ends. All three kinds behave the same."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from firebrick.guest.client import ByteStream, open_stream, stream_from
from firebrick.guest.double import pipe

Ends = tuple[ByteStream, ByteStream]


async def over_socket(sock: socket.socket) -> ByteStream:
    return await open_stream(sock)


async def over_pair(sock: socket.socket) -> ByteStream:
    return stream_from(*await asyncio.open_connection(sock=sock))


@pytest.fixture(params=["socket", "pair", "pipe"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    if request.param == "pipe":
        one, other = pipe()
    else:
        make = over_socket if request.param == "socket" else over_pair
        left, right = socket.socketpair()
        one, other = await make(left), await make(right)
    yield one, other
    await one.close()
    await other.close()


async def received(stream: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.read(1 << 20)
    return data


async def test_bytes_arrive_in_order(ends: Ends) -> None:
    one, other = ends
    data = bytes(range(256)) * 16384
    writing = asyncio.create_task(one.write(data))
    assert await received(other, len(data)) == data
    await writing


async def test_a_read_takes_no_more_than_asked(ends: Ends) -> None:
    one, other = ends
    await one.write(b"0123456789")
    assert await other.read(4) == b"0123"
    assert await other.read(4) == b"4567"
    assert await other.read(400) == b"89"


async def test_a_read_waits(ends: Ends) -> None:
    one, other = ends
    reading = asyncio.create_task(other.read(10))
    await asyncio.sleep(0)
    assert not reading.done()
    await one.write(memoryview(b"late"))
    assert await reading == b"late"


async def test_a_writer_waits_for_a_reader(ends: Ends) -> None:
    one, other = ends
    size = 0

    async def fill() -> None:
        nonlocal size
        while True:
            await one.write(bytes(1 << 16))
            size += 1 << 16

    filling = asyncio.create_task(fill())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert size < 4 << 20, "nothing holds the writer back"
    before = size
    await received(other, before)
    for _ in range(100):
        await asyncio.sleep(0)
    assert size > before
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)


async def test_a_cancelled_write_has_been_made(ends: Ends) -> None:
    """What keeps frames whole: once `write` was called, all of it goes out, whatever becomes of the caller."""
    one, other = ends
    pieces = [bytes([i]) * (1 << 18) for i in range(12)]
    writing = [asyncio.create_task(one.write(piece)) for piece in pieces]
    for _ in range(10):
        await asyncio.sleep(0)
    for task in writing:
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    expected = b"".join(pieces)
    assert await received(other, len(expected)) == expected


async def test_the_end_is_seen(ends: Ends) -> None:
    one, other = ends
    await one.write(b"last")
    assert await other.read(10) == b"last"
    await one.close()
    await one.close()
    assert await other.read(10) == b""
    assert await other.read(10) == b""


async def test_closing_ends_a_pending_read(ends: Ends) -> None:
    one, _ = ends
    reading = asyncio.create_task(one.read(10))
    await asyncio.sleep(0)
    await one.close()
    async with asyncio.timeout(10):
        (result,) = await asyncio.gather(reading, return_exceptions=True)
    assert result == b"" or isinstance(result, OSError)


async def test_writing_to_what_is_gone_raises(ends: Ends) -> None:
    one, other = ends
    await other.close()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on when it is noticed
        async with asyncio.timeout(10):
            while True:
                await one.write(bytes(1 << 16))
                await asyncio.sleep(0)


async def test_a_waiting_writer_hears_of_the_loss(ends: Ends) -> None:
    one, other = ends
    writing = asyncio.create_task(one.write(bytes(8 << 20)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not writing.done()
    await other.close()
    async with asyncio.timeout(10):
        await asyncio.gather(writing, return_exceptions=True)
