"""Connecting to a socket a VMM has made.

A VMM that a guest has broken out into can put what it likes at the socket's name. So the name is opened first, no link is followed, and the
connection goes to what was opened. That also makes the path's length no matter: a socket's address has 108 bytes at most."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path


def connected(path: Path) -> socket.socket:
    """A non-blocking stream socket connected to `path`. Raises OSError: nobody listens, or it is not a socket."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ConnectionRefusedError(f"{path} is not a socket")
        sock = socket.socket(socket.AF_UNIX)
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{fd}")
            undo.pop_all()
        return sock
    finally:
        os.close(fd)
