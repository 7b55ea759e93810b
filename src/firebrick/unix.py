"""Unix sockets of processes that may be killed: each is named after its process, so that the next one can tell which are nobody's."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NUMBERS: Final = itertools.count(1)
_BACKLOG: Final = 128


def new_name(directory: Path) -> Path:
    """`<directory>/<pid>-<number>.sock`, a path nobody else in this process has been given. The directory is made, and is this user's alone;
    sockets of processes that were killed are removed from it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in directory.glob("*-*.sock"):
        # One whose number is used again goes when somebody knocks in vain.
        if not Path("/proc", left.name.partition("-")[0]).exists():
            left.unlink(missing_ok=True)
    return directory / f"{os.getpid()}-{next(_NUMBERS)}.sock"


@contextlib.contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """Another name for a directory, for socket paths: those may have 107 bytes."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path`, this user's alone; it is gone when the context is left."""
    with socket.socket(socket.AF_UNIX) as door:
        with short_path(path.parent) as near:
            door.bind(f"{near}/{path.name}")
        try:
            path.chmod(0o600)
            door.listen(_BACKLOG)
            yield door
        finally:
            path.unlink(missing_ok=True)
