"""Those who connect and are slow: each way of it has an end, and none keeps others out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from firebrick.task import end_tasks
from firebrick.web import Bounds, WebServer, web_config

QUICK = Bounds(connections=4, head_s=0.5, idle_s=1, stall_s=1.0, body_rate=1000)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
LARGE = 64 << 20

pytestmark = pytest.mark.network


async def app(scope, receive, send) -> None:
    """`/slow` thinks for two seconds, `/large` answers with much, `/deaf` reads no body before it has thought."""
    if scope["path"] in ("/slow", "/deaf"):
        await asyncio.sleep(2.2)
    while (await receive()).get("more_body"):
        pass
    body = bytes(1 << 20)
    count = LARGE // len(body) if scope["path"] == "/large" else 0
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (count << 20))]})
    for _ in range(count):
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(bounds: Bounds = QUICK) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        ready = asyncio.Event()
        server = WebServer(web_config(app, bounds, goodbye_s=1), ready.set)
        task = asyncio.create_task(server.serve(sockets=[door]))
        await ready.wait()
        try:
            async with asyncio.timeout(20):
                yield door.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait([task])
            assert not server.server_state.connections


async def connect(port: int, text: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    return reader, writer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends without an answer."""
    try:
        return await reader.read(100) == b""
    except ConnectionError:
        return True


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for as long as anybody takes it."""
    try:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX: "])
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    async with serving() as port:
        reader, writer = await connect(port, begun)
        assert await is_cut(reader)
        await close(writer)


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nX: ", POST, GET + b"GET / HTTP/1.1\r\nX: "])
async def test_bytes_that_drip_are_not_waited_for(begun: bytes) -> None:
    async with serving() as port:
        reader, writer = await connect(port, begun)
        dripping = asyncio.create_task(drip(writer))
        while not await is_cut(reader):
            pass
        await end_tasks(dripping)
        await close(writer)


async def test_an_answer_nobody_reads_is_given_up() -> None:
    async with serving() as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(GET.replace(b"/ ", b"/large "))
            await asyncio.sleep(3)
            assert await asyncio.to_thread(read_all, client) < LARGE


def read_all(client: socket.socket) -> int:
    total = 0
    try:
        while data := client.recv(1 << 20):
            total += len(data)
    except ConnectionError:
        pass
    return total


async def test_who_is_quick_enough_may_take_long() -> None:
    """Bodies in pieces, a server that thinks, one that does not read: none of that is the client's debt."""
    async with serving() as port:
        reader, writer = await connect(port, POST)
        for _ in range(20):
            writer.write(bytes(5000))
            await asyncio.sleep(0.1)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for path in (b"/slow ", b"/deaf "):
            writer.write(POST.replace(b"/ ", path, 1) + bytes(100_000))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await close(writer)


async def test_who_only_waits_makes_room_for_others() -> None:
    bounds = Bounds(connections=4, head_s=60, idle_s=60, stall_s=60)
    async with serving(bounds) as port:
        idle = [await connect(port, b"GET / HT") for _ in range(4)]
        reader, writer = await connect(port, GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await is_cut(idle[0][0])
        for _, one in (*idle, (reader, writer)):
            await close(one)


async def test_where_all_have_work_under_way_new_ones_are_told() -> None:
    async with serving() as port:
        busy = [await connect(port, GET.replace(b"/ ", b"/slow ")) for _ in range(4)]
        await asyncio.sleep(0.3)
        reader, writer = await connect(port, GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        more = [await connect(port) for _ in range(80)]
        assert await is_cut(more[-1][0])
        for one, _ in busy:
            assert (await one.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, one in (*busy, *more, (reader, writer)):
            await close(one)
