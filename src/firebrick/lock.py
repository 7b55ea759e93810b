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
    """Hold the lock at `path`, alone among all tasks of all processes. `waiting` is called once if somebody else has it. Whoever holds it may, as
    the last it does, remove the file: those who wait take the next one.

    Asks again and again rather than blocking in a thread, so that a cancelled wait ends at once."""
    tell = waiting
    with contextlib.ExitStack() as held:
        while True:
            with contextlib.ExitStack() as attempt:
                fd = attempt.enter_context(_opened(path))
                while not _taken(fd):
                    if tell is not None:
                        tell()
                        tell = None
                    await asyncio.sleep(_POLL_S)
                if _is_at(fd, path):
                    held.push(attempt.pop_all())
                    break
        yield


def _is_at(fd: int, path: Path) -> bool:
    """Whether the file still has this name: who had the lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Yields whether the lock was free, and is now held until the context is left."""
    with _opened(path) as fd:
        yield _taken(fd)
