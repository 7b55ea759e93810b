"""Ports of the double: what it answers on, and what the host listens on in it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
from collections import deque
from typing import TYPE_CHECKING, Final

from firebrick.guest import message, protocol
from firebrick.guest.double.disk import Refusal
from firebrick.guest.double.pipe import PipeEnd, pipe
from firebrick.guest.protocol import Channel

if TYPE_CHECKING:
    from firebrick.guest.double.exchange import Exchange

BACKLOG: Final = 128
_CHUNK: Final = 1 << 16
_FIRST_FREE: Final = 49152


class Door:
    """Where connections wait for the host."""

    def __init__(self) -> None:
        self._waiting: deque[PipeEnd] = deque()
        self._open = True
        self._change = asyncio.Event()

    def knock(self) -> PipeEnd:
        """The program's end of a new connection. Raises ConnectionRefusedError where there are too many."""
        if len(self._waiting) >= BACKLOG:
            raise ConnectionRefusedError("too many connections wait")
        ours, theirs = pipe()
        self._waiting.append(theirs)
        self._change.set()
        return ours

    async def take(self) -> PipeEnd:
        """The next connection. Raises Refusal once nothing listens any more."""
        while not self._waiting:
            if not self._open:
                raise Refusal("not_found", "nothing listens there any more")
            self._change.clear()
            await self._change.wait()
        return self._waiting.popleft()

    async def close(self) -> None:
        self._open = False
        self._change.set()
        while self._waiting:
            await self._waiting.popleft().close()


async def connect(exchange: Exchange, request: message.Connect) -> message.Done:
    where = request.unix if request.port is None else request.port
    server = exchange.session.guest.ports.get(where or b"")
    if server is None:
        raise Refusal("io", f"cannot connect to {where!r}: connection refused", errno.ECONNREFUSED)
    await exchange.session.send(protocol.control(exchange.id, message.Connected()))
    await server(exchange.input.read, lambda data: exchange.send(Channel.OUTPUT, data))
    await exchange.session.send(protocol.eof(exchange.id, Channel.OUTPUT))
    exchange.input.discard()
    while await exchange.input.read():
        """The host may go on until it ends its side."""
    return message.Done()


async def listen(exchange: Exchange, request: message.Listen) -> message.Done:
    """Until the stream is reset."""
    doors = exchange.session.guest.doors
    where = _where(exchange, request)
    if where in doors:
        raise Refusal("exists", f"cannot listen on {where!r}: address already in use", errno.EADDRINUSE)
    exchange.door = doors[where] = Door()
    try:
        port = None if isinstance(where, bytes) else where[1]
        await exchange.session.send(protocol.control(exchange.id, message.Listening(port=port)))
        await asyncio.Event().wait()
    finally:
        del doors[where]
        await exchange.door.close()
    return message.Done()


def _where(exchange: Exchange, request: message.Listen) -> tuple[str, int] | bytes:
    if (request.unix is None) == (request.port is None):
        raise Refusal("bad_request", "a listen names either a port or a unix socket")
    if request.unix is not None:
        exchange.session.guest.disk.directory(request.unix.rpartition(b"/")[0] or b"/")
        return request.unix
    host = request.host or "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as e:
        raise Refusal("bad_request", f"{host!r} is not an IP address") from e
    if not loopback:
        raise Refusal("bad_request", f"{host} is no address of the loopback")
    doors = exchange.session.guest.doors
    return host, request.port or next(port for port in range(_FIRST_FREE, 65536) if (host, port) not in doors)


async def accept(exchange: Exchange, request: message.Accept) -> message.Done:
    door = exchange.session.door(request.listener)
    if door is None:
        raise Refusal("not_found", f"nothing listens for stream {request.listener}")
    end = await door.take()
    exchange.waits = False
    try:
        await exchange.session.send(protocol.control(exchange.id, message.Connected()))
        async with asyncio.TaskGroup() as both:
            both.create_task(_to_guest(exchange, end), name=f"double-{exchange.id}-in")
            both.create_task(_to_host(exchange, end), name=f"double-{exchange.id}-out")
    finally:
        await end.close()
    return message.Done()


async def _to_guest(exchange: Exchange, end: PipeEnd) -> None:
    with contextlib.suppress(BrokenPipeError):
        async for piece in exchange.input:
            await end.write(piece)
        await end.end()
    exchange.input.discard()
    while await exchange.input.read():
        """Nobody in the guest reads it any more."""


async def _to_host(exchange: Exchange, end: PipeEnd) -> None:
    while piece := await end.read(_CHUNK):
        await exchange.send(Channel.OUTPUT, piece)
    with contextlib.suppress(OSError):  # the host is gone: this will be ended
        await exchange.session.send(protocol.eof(exchange.id, Channel.OUTPUT))
