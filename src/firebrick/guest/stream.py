"""The byte stream below the protocol, and its two makings: over an asyncio stream pair, and straight over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol

READ_SIZE = 1 << 18
"""What one read asks for. Larger does not help: it is four times what a socket or a virtio queue holds by default."""


class ByteStream(Protocol):
    """A duplex byte stream. One task reads; any number write."""

    async def read(self, limit: int) -> bytes:
        """The next 1 to `limit` bytes; b"" when the other end will send no more. Raises OSError when the stream is lost."""

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of `data` and return when there is room for more.

        The whole of `data` is accepted before the first suspension: writes of several tasks never mix, and a write that is
        cancelled while it waits for room has been made. `data` must not change afterwards. Raises OSError when the stream is lost."""

    async def close(self) -> None:
        """End both directions, without waiting for the other end. Idempotent; a pending read returns or raises."""


def stream_from(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> ByteStream:
    """The byte stream of an asyncio stream pair, which it owns from now on. `open_stream` is faster where there is a socket."""
    return _PairStream(reader, writer)


async def open_stream(sock: socket.socket) -> ByteStream:
    """The byte stream of a connected stream socket, which it owns from now on."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(SocketStream, sock=sock)
    return stream


class _PairStream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.transport.abort()  # closing would wait for the other end to read
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class SocketStream(asyncio.BufferedProtocol):
    """A ByteStream that receives into one buffer of its own and stays registered with the event loop between reads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(READ_SIZE)
        self._filled = 0
        self._ended = False
        self._lost: OSError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the signature is asyncio's
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._buffer):
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake_reader()
        return True

    def pause_writing(self) -> None:
        self._writers = []

    def resume_writing(self) -> None:
        waiting, self._writers = self._writers or [], None
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._lost = exc if isinstance(exc, OSError) else ConnectionResetError("the stream was closed")
        self._wake_reader()
        self.resume_writing()
        if not self._closed.done():
            self._closed.set_result(None)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # --- what a ByteStream does ---

    async def read(self, limit: int) -> bytes:
        while not self._filled and not self._ended:
            self._reader = self._loop.create_future()
            await self._reader
        size = min(limit, self._filled)
        full = self._filled == len(self._buffer)
        with memoryview(self._buffer) as view:
            piece = bytes(view[:size])
            if size < self._filled:
                view[: self._filled - size] = view[size : self._filled]
        self._filled -= size
        if full and not self._ended:
            self._transport.resume_reading()
        return piece

    async def write(self, data: bytes | memoryview) -> None:
        if self._lost is not None:
            raise ConnectionResetError("the stream is closed") from self._lost
        self._transport.write(data)
        if self._writers is not None:
            room: asyncio.Future[None] = self._loop.create_future()
            self._writers.append(room)
            await room
            if self._lost is not None:
                raise ConnectionResetError("the stream was lost while data waited for room") from self._lost

    async def close(self) -> None:
        self._transport.abort()
        await asyncio.shield(self._closed)
