"""The log of a build: numbered lines in a file, one JSON object a line, appended by one writer and read by any number of followers.

The number of a line is its place in the file, from 1; so a follower that was cut off goes on where it stopped, and a server that died in the
middle of a line goes on behind the last whole one. What a follower sends on are the lines as they are in the file: nothing is held in memory
but the chunk being sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

_FLUSH_BYTES: Final = 1 << 18
_CHUNK: Final = 1 << 16
_LONGEST_TEXT: Final = 1 << 16
_DROPPED: Final = "The log has reached its limit of {} MiB; what the build prints from here on is not kept."

_encoder: Final = msgspec.json.Encoder()


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `stream` is `stdout` or `stderr` of a step, `node` for what the node says, `server` for what the server says."""

    n: int
    at: float
    job: str = ""
    step: int = -1
    stream: str = "server"
    text: str


class BuildLog:
    """The one writer of a log. Lines are on disk, and followers told, when the loop comes round at the latest."""

    def __init__(self, file: io.FileIO, lines: int, size: int, limit: int, on_flush: Callable[[], None]) -> None:
        self._file = file
        self._lines = lines
        self._size = size
        self._limit = limit
        self._on_flush = on_flush
        self._waiting = bytearray()
        self._flush_due: asyncio.Handle | None = None
        self._full = False

    def say(self, text: str, *, at: float | None = None, job: str = "", step: int = -1) -> None:
        """A line, or several, of the server itself, now or at the time given. Kept even when the log is full: it says how the build ended."""
        for line in text.splitlines() or [""]:
            self._append(
                LogRecord(n=self._lines + 1, at=time.time() if at is None else at, job=job, step=step, text=line)
            )

    def add(self, *, at: float, job: str, step: int, stream: str, text: str) -> None:
        """A line of the build. One longer than 64 KiB is broken into several; beyond the limit of the log lines are dropped, once said so."""
        if self._full:
            return
        if self._size + len(self._waiting) > self._limit:
            self._full = True
            self.say(_DROPPED.format(self._limit >> 20))
            return
        for start in range(0, max(len(text), 1), _LONGEST_TEXT):
            part = text[start : start + _LONGEST_TEXT]
            self._append(LogRecord(n=self._lines + 1, at=at, job=job, step=step, stream=stream, text=part))

    def flush(self) -> None:
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if self._waiting:
            view = memoryview(bytes(self._waiting))
            self._waiting.clear()
            while view:
                view = view[self._file.write(view) or 0 :]
            self._size = self._file.tell()
            self._on_flush()

    def _append(self, record: LogRecord) -> None:
        self._lines += 1
        self._waiting += _encode(record) + b"\n"
        if len(self._waiting) >= _FLUSH_BYTES:
            self.flush()
        elif self._flush_due is None:
            self._flush_due = asyncio.get_running_loop().call_soon(self.flush)


def _encode(record: LogRecord) -> bytes:
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:  # half a surrogate pair: nothing that can be written
        return _encoder.encode(msgspec.structs.replace(record, text=record.text.encode(errors="replace").decode()))


@contextmanager
def open_log(path: Path, *, limit_mib: int, on_flush: Callable[[], None]) -> Iterator[BuildLog]:
    """Open the log for appending, behind its last whole line. Everything is on disk when the context is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:  # noqa: PTH123 - Path.open does not type the raw file
        lines, size = _mend(file)
        log = BuildLog(file, lines, size, limit_mib << 20, on_flush)
        try:
            yield log
        finally:
            log.flush()


def _mend(file: io.FileIO) -> tuple[int, int]:
    """Cut off a last line that was not finished; how many lines and bytes are left."""
    file.seek(0)
    lines = whole = position = 0
    while chunk := file.read(_CHUNK):
        count = chunk.count(b"\n")
        if count:
            lines += count
            whole = position + chunk.rindex(b"\n") + 1
        position += len(chunk)
    if whole != position:
        file.truncate(whole)
    file.seek(whole)
    return lines, whole


class LogReader:
    """One follower's place in a log. The file may not be there yet, and may grow while it is read."""

    def __init__(self, path: Path, after: int = 0) -> None:
        """Begin behind line `after`."""
        self._path = path
        self._file: io.FileIO | None = None
        self._skip = after
        self._rest = b""
        self.line = 0

    def read(self) -> list[bytes]:
        """The next lines, without their newlines: about 64 KiB of them, or none when there are no more now. `line` is the number of the last."""
        if self._file is None and not self._open():
            return []
        assert self._file is not None
        while chunk := self._file.read(_CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self.line += len(lines)
            fresh = lines[max(0, len(lines) - (self.line - self._skip)) :] if self.line > self._skip else []
            if fresh:
                return fresh
        return []

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            self._file = open(self._path, "rb", buffering=0)  # noqa: PTH123, SIM115 - closed by close()
        return self._file is not None


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log as text. `truncated`: there is more before it."""

    text: str
    truncated: bool


def read_tail(path: Path, limit: int) -> Tail:
    """The last lines of a log, of at most `limit` bytes of its file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - limit)
            file.seek(start)
            data = file.read(limit)
    except FileNotFoundError:
        return Tail("", truncated=False)
    if start:
        data = data.partition(b"\n")[2]
    return Tail("".join(f"{text_of(line)}\n" for line in data.split(b"\n")[:-1]), truncated=start > 0)


async def read_text(path: Path) -> AsyncGenerator[str]:
    """The whole log as text, in pieces."""
    reader = LogReader(path)
    try:
        while lines := await asyncio.to_thread(reader.read):
            yield "".join(f"{text_of(line)}\n" for line in lines)
    finally:
        reader.close()


class _Text(msgspec.Struct):
    text: str


_text_decoder: Final = msgspec.json.Decoder(_Text)


def text_of(line: bytes) -> str:
    """What a line of the file says."""
    return _text_decoder.decode(line).text
