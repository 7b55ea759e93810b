"""The events of one run, spooled to an anonymous file: written once, read from the start by anyone, at any speed.

The file has no name from the moment it is made, so a crash of the process leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec

from firebrick.node.event import (
    ActionResolved,
    Annotation,
    ArtifactStored,
    Event,
    JobFinished,
    JobsPlanned,
    JobStarted,
    LogLine,
    MachineKept,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)
from firebrick.text import encodable

AnyEvent = (
    RunStarted
    | JobsPlanned
    | JobStarted
    | ActionResolved
    | StepStarted
    | LogLine
    | Annotation
    | StepFinished
    | MachineKept
    | ArtifactStored
    | JobFinished
    | RunFinished
)

_LENGTH: Final = struct.Struct("<I")
_BLOCK: Final = 1 << 18
_FRESH: Final = 1 << 16


class Journal:
    """Appending never waits for a disk longer than a write takes, and writes when there is a block or a reader. `close` ends every reader
    after what is there."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = 0
        self._fresh = bytearray()
        self._closed = False
        self._grown = asyncio.Event()
        self._waited_for = False
        self._encoder = msgspec.msgpack.Encoder()
        self._readers = 0

    @classmethod
    def create(cls, directory: Path) -> Journal:
        """`directory` is where the anonymous file takes its room from; it is made where missing."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls(tempfile.TemporaryFile(dir=directory, buffering=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, event: Event) -> None:
        record = self._encode(event)
        self._fresh += _LENGTH.pack(len(record))
        self._fresh += record
        if len(self._fresh) >= _FRESH:
            self._write()
        self._wake()

    def _write(self) -> None:
        """What was appended since the last time, into the file."""
        at = 0
        with memoryview(self._fresh) as fresh:
            while at < len(fresh):
                at += os.pwrite(self._file.fileno(), fresh[at:], self._size + at)
        self._size += at
        self._fresh.clear()

    def _encode(self, event: Event) -> bytes:
        try:
            return self._encoder.encode(event)
        except UnicodeEncodeError:  # half a surrogate pair, in whichever field: an event is never lost for that
            return self._encoder.encode(_encodable(msgspec.to_builtins(event)))

    def close(self) -> None:
        """Idempotent. Readers still get everything that was appended; the file goes with the last of them."""
        self._closed = True
        if self._readers and self._fresh:
            self._write()
        self._wake()
        self._release()

    async def read(self) -> AsyncGenerator[AnyEvent, None]:
        """Every event from the first on; ends when the journal is closed and everything was read."""
        if self._file.closed:
            return
        self._readers += 1
        try:
            async for record in self._records():
                yield _DECODER.decode(record)
        finally:
            self._readers -= 1
            self._release()

    async def _records(self) -> AsyncIterator[memoryview]:
        offset, rest = 0, b""
        while True:
            if self._fresh:
                self._write()
            if offset == self._size:
                if self._closed:
                    return
                self._waited_for = True
                await self._grown.wait()
                continue
            block = os.pread(self._file.fileno(), min(_BLOCK, self._size - offset), offset)
            offset += len(block)
            complete, rest = _split(rest + block)
            for record in complete:
                yield record
            await asyncio.sleep(0)  # a reader that lags far behind must not keep the loop to itself

    def _wake(self) -> None:
        if self._waited_for:
            grown, self._grown, self._waited_for = self._grown, asyncio.Event(), False
            grown.set()

    def _release(self) -> None:
        if self._closed and self._readers == 0:
            self._file.close()


_DECODER: Final = msgspec.msgpack.Decoder(AnyEvent)


def _encodable(value: object) -> object:
    match value:
        case str():
            return encodable(value)
        case list() | tuple():
            return [_encodable(item) for item in value]
        case dict():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


def _split(data: bytes) -> tuple[list[memoryview], bytes]:
    """The complete records in `data`, and the start of the next one."""
    view = memoryview(data)
    records, at = [], 0
    while len(data) - at >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data, at)
        end = at + _LENGTH.size + length
        if end > len(data):
            break
        records.append(view[at + _LENGTH.size : end])
        at = end
    return records, data[at:]
