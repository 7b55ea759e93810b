"""A process that plays Firecracker, as seen from the test that tells it what to touch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from firebrick import process

PAGE = 4096
PLAYER = Path(__file__).with_name("firecracker.py")


class Machine:
    """A process that plays Firecracker; an attribute is a command of its."""

    def __init__(self, running: process.Process) -> None:
        self._running = running
        self.pid = running.pid

    def __getattr__(self, name: str) -> Any:
        async def command(**arguments: object) -> Any:
            assert self._running.stdin is not None and self._running.stdout is not None
            self._running.stdin.write(json.dumps([name, arguments]).encode() + b"\n")
            async with asyncio.timeout(20):
                answer = json.loads(await self._running.stdout.readline())
            if "error" in answer:
                raise OSError(answer["error"])
            return answer["ok"]

        return command

    def kill(self) -> None:
        self._running.signal(9)


@contextlib.asynccontextmanager
async def machine(pages: int = 0, page_size: int = PAGE) -> AsyncIterator[Machine]:
    """One with a region of so many pages of 4 KiB from the start of the memory file, if any."""
    argv = [sys.executable, str(PLAYER)]
    async with process.spawn(argv, stdin=process.PIPE, stdout=process.PIPE, stderr=sys.stderr.fileno(), grace=0) as it:
        player = Machine(it)
        if pages:
            await player.map(regions=[[0, pages * PAGE]], page_size=page_size)
        yield player


@contextlib.contextmanager
def near(path: Path) -> Iterator[str]:
    """A name for a socket that is short enough to connect to, in this process's children too."""
    fd = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/{os.getpid()}/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
