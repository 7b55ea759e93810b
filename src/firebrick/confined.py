"""Opening files below a directory whose content is hostile: no `..`, no symbolic link on the way, no device, pipe or socket at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OutsideError(OSError):
    """The path leads out of the directory, or to something that is no regular file."""


@contextmanager
def open_beneath(root: Path, relative: str) -> Iterator[BinaryIO]:
    """Open a regular file below `root` for reading. Raises OutsideError; FileNotFoundError and the like where there is none."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OutsideError(f"{relative!r} is not a plain relative path")
    fd = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in parts[:-1]:
            fd = _step(fd, part, _DIRECTORY)
        fd = _step(fd, parts[-1], _FILE)
        _check_regular(fd, relative)
        file = os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise
    with file:
        yield file


def _check_regular(fd: int, relative: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OutsideError(f"{relative!r} is no regular file")


def _step(directory: int, name: str, flags: int) -> int:
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if os.path.islink(f"/proc/self/fd/{directory}/{name}"):  # noqa: PTH114 - a path below a descriptor
            raise OutsideError(f"{name!r} is a symbolic link") from error
        raise
    os.close(directory)
    return fd


def read_beneath(root: Path, relative: str, limit: int) -> bytes:
    """The content of a file below `root`. Raises what `open_beneath` does, and OutsideError for a file of more than `limit` bytes."""
    with open_beneath(root, relative) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OutsideError(f"{relative!r} is larger than {limit} bytes")
    return data


def names_beneath(root: Path, relative: str) -> list[str]:
    """The names in a directory below `root`, sorted; none where there is no such directory or a symbolic link is on the way."""
    fd = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in relative.split("/") if relative else []:
            fd = _step(fd, part, _DIRECTORY)
        return sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
    except (FileNotFoundError, NotADirectoryError, OutsideError):
        return []
    finally:
        os.close(fd)
