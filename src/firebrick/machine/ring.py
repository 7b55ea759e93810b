"""The last bytes of an endless output."""

from __future__ import annotations


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
        return bytes(self._data[-self._size :]).decode(errors="replace").replace("\r\n", "\n")
