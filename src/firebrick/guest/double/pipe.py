"""Two ends of a byte stream in memory, with the back-pressure of a real one."""

from __future__ import annotations

import asyncio
from collections import deque

HOLD = 1 << 18
"""Bytes on their way in one direction before a writer has to wait."""


class _Lane:
    """One direction."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._change = asyncio.Condition()

    async def put(self, data: bytes) -> None:
        if self._ended:
            raise BrokenPipeError("the other end of the stream is closed")
        self._pieces.append(data)
        self._size += len(data)
        async with self._change:
            self._change.notify_all()
            await self._change.wait_for(lambda: self._size < HOLD or self._ended)

    async def get(self, limit: int) -> bytes:
        async with self._change:
            await self._change.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if len(piece) > limit:
                self._pieces.appendleft(piece[limit:])
                piece = piece[:limit]
            self._size -= len(piece)
            self._change.notify_all()
            return piece

    async def end(self) -> None:
        self._ended = True
        async with self._change:
            self._change.notify_all()


class PipeEnd:
    """A ByteStream with a half-close; see `pipe`."""

    def __init__(self, incoming: _Lane, outgoing: _Lane) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def read(self, limit: int) -> bytes:
        return await self._incoming.get(limit)

    async def write(self, data: bytes | memoryview) -> None:
        await self._outgoing.put(bytes(data))

    async def end(self) -> None:
        """Write no more; the other end may."""
        await self._outgoing.end()

    async def settle(self) -> None:
        """What was written is at the other end."""

    async def close(self) -> None:
        await self._incoming.end()
        await self._outgoing.end()


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """Two connected byte streams."""
    there, back = _Lane(), _Lane()
    return PipeEnd(back, there), PipeEnd(there, back)
