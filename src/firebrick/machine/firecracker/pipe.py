"""FIFOs a VMM writes to: its console, its errors, its log, its metrics.

The reading end is open before the VMM is started, so nothing is lost, and it is open for writing too, so there is no end of file: a VMM whose owner
died goes on, and another process can take up the reading. What nobody wants to keep for ever goes into a ring."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

_PIECE: Final = 1 << 16
_MOST_LINE: Final = 1 << 20
_LAST_PIECES: Final = 64


class Pipe:
    """A FIFO in the file system at `path`, read into `sink` as data comes. Closed by `close`."""

    def __init__(self, path: Path, sink: Callable[[bytes], None]) -> None:
        """Made where it is missing. Raises OSError, also for what is there and no FIFO."""
        self._sink = sink
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(f"{path} is no FIFO any more")
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    @contextlib.contextmanager
    def writer(self) -> Iterator[int]:
        """A descriptor for a program's output, closed here when it has it."""
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def drain(self) -> None:
        """Read what is there, now. For after the VMM's end."""
        for _ in range(_LAST_PIECES):
            if not self._read():
                return

    def close(self) -> None:
        """Idempotent. What was not read is lost."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return False
        self._sink(data)
        return True


class LastRecord:
    """The last whole JSON object of a stream of them, one a line."""

    def __init__(self) -> None:
        self._last = b""
        self._begun = bytearray()

    def write(self, data: bytes) -> None:
        lines = (bytes(self._begun) + data).split(b"\n")
        self._begun = bytearray(lines.pop()[:_MOST_LINE])
        for line in lines:
            self._last = line or self._last

    def value(self) -> Mapping[str, Any]:
        """Empty where there was none yet, or it is damaged."""
        try:
            value = msgspec.json.decode(self._last)
        except (msgspec.DecodeError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}
