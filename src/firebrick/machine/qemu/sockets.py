"""The sockets of a machine, in its directory: listened to before QEMU runs, so that nobody has to wait for them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

AGENT: Final = "agent.sock"
MONITOR: Final = "monitor.sock"


@contextlib.contextmanager
def listening(directory: Path, name: str) -> Iterator[socket.socket]:
    with _near(directory) as near, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{near}/{name}")
        sock.listen(1)
        yield sock


def connect(directory: Path, name: str) -> socket.socket:
    """Succeeds at once: the other end listens, even before QEMU runs. Raises OSError when QEMU has ended."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _near(directory) as near:
            sock.connect(f"{near}/{name}")
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _near(directory: Path) -> Iterator[str]:
    """A short name for a directory: a socket's path has 108 bytes at most."""
    with opened(directory) as fd:
        yield f"/proc/self/fd/{fd}"
