"""What QEMU and its guest write: over pipes to who started it, or through named ones in the machine's directory to whoever attends to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.machine import outlet
from firebrick.machine.ring import FileRing, Ring, Tail
from firebrick.process import Process

CONSOLE_BYTES: Final = 64 << 10
COMPLAINT_BYTES: Final = 4 << 10
_CONSOLE: Final = "console"
_COMPLAINTS: Final = "complaints"
_RING: Final = "console.ring"


@dataclass(frozen=True, slots=True)
class Outputs:
    """The streams to read, and what keeps their ends."""

    streams: tuple[asyncio.StreamReader, asyncio.StreamReader]
    console: Tail
    complaints: Tail

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
        """They are read as long as the context: tasks that are done at the streams' ends."""
        console, complaints = self.streams
        readers = (
            asyncio.create_task(_drain(console, self.console), name="qemu-console"),
            asyncio.create_task(_drain(complaints, self.complaints), name="qemu-stderr"),
        )
        try:
            yield readers
        finally:
            for reader in readers:
                reader.cancel()


def piped(process: Process) -> Outputs:
    """Of a process that was started with pipes."""
    assert process.stdout is not None
    assert process.stderr is not None
    return Outputs((process.stdout, process.stderr), Ring(CONSOLE_BYTES), Ring(COMPLAINT_BYTES))


@contextlib.contextmanager
def named(directory: Path) -> Iterator[tuple[int, int]]:
    """New named pipes, as a process that may outlive this one is to inherit them: for its output and its error output."""
    with (
        outlet.made(directory / _CONSOLE, lossy=False) as console,
        outlet.made(directory / _COMPLAINTS, lossy=True) as complaints,
    ):
        yield console, complaints


@contextlib.asynccontextmanager
async def found(directory: Path) -> AsyncIterator[Outputs]:
    """The named pipes there, read from where the last reader came to. Raises FileNotFoundError."""
    async with outlet.reading(directory / _CONSOLE) as console, outlet.reading(directory / _COMPLAINTS) as complaints:
        ring = FileRing(directory / _RING, CONSOLE_BYTES)
        yield Outputs((console, complaints), ring, Ring(COMPLAINT_BYTES))


async def _drain(source: asyncio.StreamReader, tail: Tail) -> None:
    while data := await source.read(1 << 14):
        tail.write(data)
