"""Bytes that come in pieces, into a file: hashed and written in threads, so that a disk that is slow holds up nobody but who writes to it."""

from __future__ import annotations

import asyncio
from io import FileIO
from typing import Final, Protocol

from firebrick.task import shielded

_BATCH: Final = 1 << 20
"""Bytes that are written at once. A thread for each piece would cost more than writing it."""


class Digest(Protocol):
    def update(self, data: bytes, /) -> object: ...


class Spool:
    """Writes to `file`, and tells `digests` the same. What was given is in the file when `flush` has returned. Used by one task at a time."""

    def __init__(self, file: FileIO, *digests: Digest) -> None:
        self._file = file
        self._digests = digests
        self._waiting = bytearray()

    async def write(self, piece: bytes) -> None:
        """Raises OSError, for what was given before, too. Cancelled, it ends when nothing is being written any more."""
        self._waiting += piece
        if len(self._waiting) >= _BATCH:
            await self.flush()

    async def flush(self) -> None:
        """As `write`."""
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            await shielded(asyncio.to_thread(self._put, data))

    def _put(self, data: bytes) -> None:
        for digest in self._digests:
            digest.update(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
