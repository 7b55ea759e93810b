"""What a guest sends on one channel of a stream, held for its reader within the channel's credit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from firebrick.guest import protocol
from firebrick.guest.errors import OutputTooLargeError, ProtocolError

GRANT = protocol.INITIAL_CREDIT // 4
"""How much is consumed before it is granted again."""


class Output:
    """What a guest sends on one channel of a stream: an asynchronous iterable of chunks, for one reader.

    Holds what was not read yet, at most the channel's credit of 256 KiB; then the guest has to wait. Chunks have any size.
    """

    def __init__(self, grant: Callable[[int], None]) -> None:
        self._grant = grant
        self._chunks: deque[bytes] = deque()
        self._room = protocol.INITIAL_CREDIT
        self._consumed = 0
        self._ended = False
        self._discarding = False
        self._failure: Callable[[], BaseException] | None = None
        self._reader: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The next chunk, or b"" after the last. Raises ChannelError if the connection is lost first."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure()
            if self._ended:
                return b""
            await self._wait()
        chunk = self._chunks.popleft()
        self._consume(len(chunk))
        return chunk

    async def take(self) -> bytes:
        """Like `read`, but all that is held in one piece."""
        first = await self.read()
        if not self._chunks:
            return first
        pieces = [first, *self._chunks]
        self._chunks.clear()
        taken = b"".join(pieces)
        self._consume(len(taken) - len(first))
        return taken

    async def read_all(self, limit: int) -> bytes:
        """Everything until the end. Raises OutputTooLargeError when that is more than `limit` bytes."""
        chunks = []
        left = limit
        async for chunk in self:
            left -= len(chunk)
            if left < 0:
                raise OutputTooLargeError(
                    f"cannot take the output of the guest: it is more than {limit} bytes",
                    hint="Read it as a stream, or allow more.",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def discard(self) -> None:
        """Throw away what is held and all that still comes, as fast as it comes."""
        self._discarding = True
        while self._chunks:
            self._consume(len(self._chunks.popleft()))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def _wait(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= GRANT and not self._ended:
            self._room += self._consumed
            self._grant(self._consumed)
            self._consumed = 0

    # --- for the stream this belongs to ---

    def receive(self, payload: bytes) -> None:
        if self._ended:
            raise ProtocolError("the guest sent data on a channel after its end")
        if len(payload) > self._room:
            raise ProtocolError(f"the guest sent {len(payload)} bytes on a channel with credit for {self._room}")
        self._room -= len(payload)
        if not payload:
            return  # needs no credit, so nothing of it may be kept
        if self._discarding:
            self._consume(len(payload))
            return
        self._chunks.append(payload)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, failure: Callable[[], BaseException]) -> None:
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
