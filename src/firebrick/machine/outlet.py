"""The outputs of a program that may outlive the process that reads them: named pipes in its directory.

The program has each pipe open for reading and writing, so it is never told that nobody reads. Who attends to it opens the pipe for reading, and
comes to its end when the program is gone. What is written while nobody attends waits in the pipe, 64 KiB of it; a console then stands still, as a
slow terminal would, and what the program says on its error output beyond that is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path


@contextlib.contextmanager
def made(path: Path, *, lossy: bool) -> Iterator[int]:
    """A new pipe, open as the program is to inherit it; with `lossy` the program does not wait where it is full."""
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if lossy else 0))
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def reading(path: Path) -> AsyncIterator[asyncio.StreamReader]:
    """What the program writes, from where the last reader came to."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        yield reader
    finally:
        transport.close()
        await asyncio.sleep(0)  # it lets go of the pipe in the loop's next round
