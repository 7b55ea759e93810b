"""Removing a tree that somebody hostile has filled.

`shutil.rmtree` calls itself for each level and holds a descriptor for each: a tree that is a thousand levels deep ends it in the middle, with an
error that is none of the file system's. Here the levels are taken apart instead, each directory's directories moved up to the top.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(directory: Path) -> None:
    """Remove a directory and all in it, however deep. No link is followed; what cannot be removed stays. Nothing that lives may change it."""
    with contextlib.suppress(OSError):
        top = os.open(directory, _OPEN)
        try:
            _empty(top)
        finally:
            os.close(top)
        directory.rmdir()


def _empty(top: int) -> None:
    prefix, number = f".{secrets.token_hex(8)}", 0
    waiting = _directories(top)
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError):
            fd = os.open(name, _OPEN, dir_fd=top)
            try:
                for inner in _directories(fd):
                    number += 1
                    os.rename(inner, f"{prefix}.{number}", src_dir_fd=fd, dst_dir_fd=top)
                    waiting.append(f"{prefix}.{number}")
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top)


def _directories(fd: int) -> list[str]:
    """The directories in the directory `fd`; everything else in there is removed."""
    found = []
    with os.scandir(fd) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.name, dir_fd=fd)
    return found
