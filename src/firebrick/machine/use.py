"""Who uses a snapshot: locks on its directory, shared by those who read it, and had alone by who removes it.

A snapshot is in use while a machine is started from it, while a difference to it is taken, and while it is made a full one. Nobody waits for a lock:
who comes too late is told why. The kernel opens the locks of a process that dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from firebrick.machine.errors import SnapshotError

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def shared(directories: Iterable[Path]) -> Iterator[None]:
    """These snapshots stay where they are as long as the context. Raises SnapshotError for one that is being removed, or is gone."""
    with ExitStack() as stack:
        for directory in directories:
            stack.enter_context(_locked(directory, fcntl.LOCK_SH, "use", "it is being removed", "Take another."))
        yield


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Nobody else uses the snapshot as long as the context. Raises SnapshotError where somebody does, or it is gone."""
    why, hint = "a machine is being started from it, or a difference to it taken", "Remove it when that is done."
    with _locked(directory, fcntl.LOCK_EX, "remove", why, hint):
        yield


@contextmanager
def _locked(directory: Path, kind: int, what: str, why: str, hint: str) -> Iterator[None]:
    try:
        fd = os.open(directory, _OPEN)
    except OSError as error:
        raise SnapshotError(f"cannot {what} the snapshot {directory}: {error.strerror}") from error
    try:
        _lock(fd, directory, kind, f"cannot {what} the snapshot {directory}: {why}", hint)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, directory: Path, kind: int, refused: str, hint: str) -> None:
    """The directory may have gone between being opened and being locked."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        there = os.path.samestat(os.fstat(fd), directory.stat())
    except (BlockingIOError, FileNotFoundError):
        there = False
    if not there:
        raise SnapshotError(refused, hint=hint)
