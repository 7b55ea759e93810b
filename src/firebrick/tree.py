"""Trees that somebody hostile has filled, or is filling: what they take, and removing them.

`shutil.rmtree` calls itself for each level and holds a descriptor for each: a tree that is a thousand levels deep ends it in the middle, with an
error that is none of the file system's. Here the levels are taken apart instead, each directory's directories moved up to the top.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENTRY_BYTES: Final = 4096
"""What a file or directory takes besides its content."""

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Measured:
    """`bytes` are those of files, holes included."""

    bytes: int
    entries: int

    @property
    def disk_bytes(self) -> int:
        """What it takes of a disk, about: a file without content, and a directory, takes some as well."""
        return self.bytes + self.entries * ENTRY_BYTES


def measure(directory: Path) -> Measured:
    """Bytes and entries below `directory`, links not followed. What comes and goes meanwhile may or may not be counted."""
    size = entries = 0
    waiting = [os.fspath(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return Measured(size, entries)


def remove(directory: Path) -> None:
    """Remove a directory and all in it, however deep and whatever its modes. No link is followed; what cannot be removed stays. Nothing that lives
    may change it. Nothing happens if it is not there."""
    with contextlib.suppress(OSError):
        _open_up(directory)
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
    """The directories in the directory `fd`, opened up; everything else in there is removed."""
    found = []
    with os.scandir(fd) as entries:
        for entry in list(entries):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
                    _open_up(entry.name, fd)
                else:
                    os.unlink(entry.name, dir_fd=fd)
    return found


def _open_up(name: str | Path, directory: int | None = None) -> None:
    """Let a directory be read and changed by whom it belongs to."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)  # noqa: PTH101 - of a descriptor
    finally:
        os.close(fd)
