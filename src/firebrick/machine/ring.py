"""The last bytes of an endless output."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final, Protocol

_WRITTEN: Final = struct.Struct("<Q")


class Tail(Protocol):
    """What keeps the end of an output."""

    def write(self, data: bytes) -> None: ...

    def text(self) -> str: ...


class Ring:
    """Keeps the last `size` bytes written to it. Writing costs the same however much was written before."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data[-self._size :]
        if (
            len(self._data) > 2 * self._size
        ):  # trimmed now and then rather than every time: deleting at the front moves the rest
            del self._data[: -self._size]

    def text(self) -> str:
        """What is kept, as text; bytes that are none are replaced, line ends are newlines."""
        return _text(bytes(self._data[-self._size :]))


class FileRing:
    """The same in a file: who opens the file next goes on with what is in it, also when the one before was killed.

    The file has the number of bytes ever written, and the last of them, each at its place modulo the size."""

    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        with path.open("a+b") as file:
            file.truncate(_WRITTEN.size + size)
            self._map = mmap.mmap(file.fileno(), _WRITTEN.size + size)

    def write(self, data: bytes) -> None:
        (written,) = _WRITTEN.unpack_from(self._map)
        kept = data[-self._size :]
        at = (written + len(data) - len(kept)) % self._size
        first = kept[: self._size - at]
        self._put(at, first)
        self._put(0, kept[len(first) :])
        _WRITTEN.pack_into(self._map, 0, written + len(data))

    def text(self) -> str:
        (written,) = _WRITTEN.unpack_from(self._map)
        data = self._map[_WRITTEN.size :]
        at = written % self._size
        return _text(data[:at] if written < self._size else data[at:] + data[:at])

    def _put(self, at: int, data: bytes) -> None:
        self._map[_WRITTEN.size + at : _WRITTEN.size + at + len(data)] = data


def _text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\r\n", "\n")
