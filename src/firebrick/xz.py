"""Reading xz whose maker is not trusted. `lzma.LZMAFile` cannot be told how much memory it may take, and a file may ask for gigabytes of it."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Final, Self

_PIECE: Final = 1 << 16
_MOST_MEMORY: Final = 128 << 20
"""What `xz -9` makes needs half of it."""
_MOST_STREAMS: Final = 1000


class XzFile:
    """What is packed in the xz file at `path`, all its streams one after the other. `read` raises LZMAError for what is no xz, needs too much memory
    or has too many streams, and EOFError where its end is missing."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stream = _stream()
        self._streams = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, which is above 0, and at least one before the end."""
        while True:
            packed = self._packed()
            if packed is None:
                return b""
            if data := self._stream.decompress(packed, size):
                return data

    def _packed(self) -> bytes | None:
        """More for the stream, a new one where it is over; None at the end."""
        if self._stream.eof:
            return self._next()
        if not self._stream.needs_input:
            return b""
        if packed := self._file.read(_PIECE):
            return packed
        raise EOFError("the xz file ends in the middle of a stream")

    def _next(self) -> bytes | None:
        packed = self._stream.unused_data.lstrip(b"\0")
        while not packed:
            piece = self._file.read(_PIECE)
            if not piece:
                return None
            packed = piece.lstrip(b"\0")  # streams may be padded
        self._streams += 1
        if self._streams > _MOST_STREAMS:
            raise lzma.LZMAError(f"it has more than {_MOST_STREAMS} streams")
        self._stream = _stream()
        return packed


def _stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)
