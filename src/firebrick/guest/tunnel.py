"""A connection to a port or socket in the guest, or from one."""

from __future__ import annotations

from firebrick.guest.errors import StreamClosedError
from firebrick.guest.exchange import Stream


class Tunnel:
    """A ByteStream with a half-close."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held = b""

    @property
    def ended(self) -> bool:
        """Whether both directions have ended."""
        return self._stream.ended

    async def read(self, limit: int) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        piece = self._held or await self._stream.output.read()
        self._held = piece[limit:]
        return piece[:limit]

    async def write(self, data: bytes | memoryview) -> None:
        try:
            await self._stream.send(data)
        except StreamClosedError as e:
            raise BrokenPipeError(str(e)) from e

    async def end(self) -> None:
        """Say that nothing more will be written."""
        await self._stream.send_eof()

    async def settle(self) -> None:
        """Once this end has ended: wait until the other has, and all that was written here has been passed on there, or it is lost."""
        await self._stream.settle()

    async def close(self) -> None:
        """Give the connection up. Idempotent."""
        self._stream.give_up()
