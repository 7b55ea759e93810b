"""What a tree holds, as one digest: of every path what it is, its permissions, what is in it, and of files when they were changed last, which
programs that keep what they have compiled look at. Times of directories say only when they were unpacked."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.node.errors import ToolError
from firebrick.node.tool.limits import MOST_FILES

_DEEPEST: Final = 64
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Measured:
    """`size` is that of all files, holes included; `paths` is how many files, directories and links there are."""

    sha256: str
    size: int
    paths: int


def measure(tree: Path, *, most_bytes: int) -> Measured:
    """Blocking, for a tree nobody changes meanwhile; no link in it is followed.

    Raises ToolError for one that is too large or too deep, has what is no file, directory or link, or cannot be read."""
    meter = _Meter(most_bytes)
    try:
        fd = os.open(tree, _DIRECTORY)
        try:
            meter.directory(fd, b"", 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise ToolError(f"cannot read the tool at {tree}: {error}") from error
    return Measured(meter.digest.hexdigest(), meter.size, meter.paths)


class _Meter:
    """What was seen of a tree so far."""

    def __init__(self, most_bytes: int) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._most_bytes = most_bytes
        self.paths = 0

    def directory(self, fd: int, path: bytes, depth: int) -> None:
        """All that is in it, in the order of its names. It is no deeper than the stack of Python is."""
        if depth > _DEEPEST:
            raise ToolError(f"a tool has directories that are more than {_DEEPEST} deep")
        self._add(path, "directory", f"{stat.S_IMODE(os.fstat(fd).st_mode):o}")
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            self._entry(fd, name, path + b"/" + name, depth)

    def _entry(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                self.directory(fd, path, depth + 1)
            finally:
                os.close(fd)
        elif stat.S_ISLNK(found.st_mode):
            self._add(path, "link", os.readlink(name, dir_fd=parent).hex())
        elif stat.S_ISREG(found.st_mode):
            self._file(parent, name, path, found)
        else:
            shown = os.fsdecode(path.lstrip(b"/"))
            raise ToolError(
                f"a tool is files, directories and links, and {shown!r} is none",
                hint="Take it out, and add the tool again.",
            )

    def _file(self, parent: int, name: bytes, path: bytes, found: os.stat_result) -> None:
        self.size += found.st_size
        if self.size > self._most_bytes:
            raise ToolError(f"a tool has more than {self._most_bytes >> 20} MiB")
        with os.fdopen(os.open(name, _FILE, dir_fd=parent), "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        self._add(path, "file", f"{stat.S_IMODE(found.st_mode):o} {found.st_mtime_ns} {content}")

    def _add(self, path: bytes, kind: str, what: str) -> None:
        self.paths += 1
        if self.paths > MOST_FILES:
            raise ToolError(f"a tool has more than {MOST_FILES} files and directories")
        self.digest.update(f"{path.hex()} {kind} {what}\n".encode())
