"""Locks between processes. They belong to an open file: a process that dies, however, lets go of them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.1


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@asynccontextmanager
async def hold_lock(path: Path, *, waiting: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Hold the lock at `path`, alone among all tasks of all processes. `waiting` is called once if somebody else has it.

    Asks again and again rather than blocking in a thread, so that a cancelled wait ends at once."""
    with _opened(path) as fd:
        if not _taken(fd):
            if waiting is not None:
                waiting()
            while not _taken(fd):  # noqa: ASYNC110 - the event is in another process
                await asyncio.sleep(_POLL_S)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Yields whether the lock was free, and is now held until the context is left."""
    with _opened(path) as fd:
        yield _taken(fd)
