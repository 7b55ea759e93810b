"""One connection to an agent: many streams over one byte stream.

A single task reads; it never waits for anything but the next bytes, so no stream that nobody reads can hold up another: what a
stream may have on its way is bounded by the credit it was given. Whoever sends writes for itself, in whole frames. What must be sent
and has nobody to wait for it - credit for what was consumed, the reset of a stream that was given up - is collected, one entry for
each channel, and sent by a second task.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from firebrick.guest import message, protocol
from firebrick.guest.errors import ChannelError, GuestError, OutputTooLargeError, ProtocolError, StreamClosedError, agent_error
from firebrick.guest.protocol import Channel, Frame, Kind
from firebrick.guest.stream import READ_SIZE, ByteStream

PIECE = 1 << 16
"""The largest data frame sent: what an urgent message may have to wait for, from each stream that is sending."""

GRANT = protocol.INITIAL_CREDIT // 4
"""How much is consumed before it is granted again."""

_CONNECTION = protocol.Messages[message.FromGuestConnection](message.FromGuestConnection, "on stream 0")
_STREAM = protocol.Messages[message.FromGuestStream](message.FromGuestStream, "on the stream of a request")


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
