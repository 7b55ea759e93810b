"""Reading a local directory as a tree stream. Blocking; nothing is followed, so nothing outside the directory is ever read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from firebrick.guest import message
from firebrick.guest.errors import TreeError
from firebrick.guest.pattern import matcher
from firebrick.guest.tree import END, EXTENT, LENGTH, MAX_DEPTH, MAX_PATH, Kind, Record, TreeCount

BLOCK = 1 << 18
"""Bytes gathered before they are handed on, and the largest extent made here."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A directory on the way down: its path in the stream, what is left of it, and whether all below it is wanted."""

    fd: int
    path: bytes
    names: Iterator[bytes]
    whole: bool


class TreeSource:
    """The tree below `root`, which must be a directory.

    `only` are relative paths: just these, what is below them, and the directories that lead there. `exclude` are patterns of the
    protocol. What vanishes while it is read is left out; devices, fifos and sockets are, too.
    """

    def __init__(
        self, root: Path, *, only: Iterable[PurePath] | None = None, exclude: Iterable[str | bytes] = ()
    ) -> None:
        self._root = root
        self._excluded = matcher([os.fsencode(p) for p in exclude])
        self._wanted = None if only is None else frozenset(os.fsencode(p.as_posix()) for p in only)
        self._leading = frozenset(_ancestors(self._wanted or ()))
        self._entries = 0
        self._bytes = 0
        self._linked: dict[tuple[int, int], bytes] = {}
        self._levels: list[_Level] = []
        self._block = bytearray()

    @property
    def count(self) -> TreeCount:
        """What was read so far."""
        return TreeCount(self._entries, self._bytes)

    def blocks(self) -> Generator[bytes, None, None]:
        """The stream, in blocks of about 256 KiB. Close the iterator if it is not run to its end: it holds open files."""
        try:
            self._enter(
                os.open(self._root, _DIRECTORY & ~os.O_NOFOLLOW),
                b"",
                whole=self._wanted is None or b"." in self._wanted,
            )
            while self._levels:
                yield from self._step(self._levels[-1])
            self._block += END
            yield self._take()
        except OSError as e:
            where = os.fsdecode(self._levels[-1].path) if self._levels else ""
            raise TreeError(f"cannot read the tree {self._root}, at {where or 'its root'}: {e}") from e
        finally:
            for level in self._levels:
                os.close(level.fd)
            self._levels.clear()

    def _take(self) -> bytes:
        block = bytes(self._block)
        self._block.clear()
        return block

    def _enter(self, fd: int, path: bytes, *, whole: bool) -> None:
        """Record a directory and make it the one that is read next."""
        self._levels.append(_Level(fd, path, iter(()), whole))
        if len(self._levels) > MAX_DEPTH:
            raise TreeError(f"cannot send {os.fsdecode(path)!r}: it is more than {MAX_DEPTH} directories deep")
        self._record(path, "directory", os.fstat(fd))
        self._levels[-1].names = iter(sorted(os.fsencode(name) for name in os.listdir(fd)))

    def _step(self, level: _Level) -> Iterator[bytes]:
        """One name further, or one directory up."""
        name = next(level.names, None)
        if name is None:
            os.close(self._levels.pop().fd)
            return
        path = level.path + b"/" + name if level.path else name
        whole = level.whole or path in (self._wanted or ())
        if not (whole or path in self._leading) or self._excluded(path):
            return
        if len(path) > MAX_PATH:
            raise TreeError(f"cannot send a path of {len(path)} bytes, more than {MAX_PATH}")
        with suppress(FileNotFoundError):
            yield from self._visit(level.fd, name, path, whole=whole)
        if len(self._block) >= BLOCK:
            yield self._take()

    def _visit(self, parent: int, name: bytes, path: bytes, *, whole: bool) -> Iterator[bytes]:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            self._enter(os.open(name, _DIRECTORY, dir_fd=parent), path, whole=whole)
        elif not whole:
            return
        elif stat.S_ISLNK(found.st_mode):
            self._record(path, "symlink", found, target=os.readlink(name, dir_fd=parent))
        elif stat.S_ISREG(found.st_mode):
            yield from self._file(parent, name, path)

    def _file(self, parent: int, name: bytes, path: bytes) -> Iterator[bytes]:
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_nlink > 1:
                first = self._linked.setdefault((found.st_dev, found.st_ino), path)
                if first != path:
                    self._record(path, "hardlink", found, target=first)
                    return
            self._record(path, "file", found, size=found.st_size)
            yield from self._extents(fd, found.st_size)
        finally:
            os.close(fd)

    def _extents(self, fd: int, size: int) -> Iterator[bytes]:
        """The data of a file up to the size that was recorded: what it grows by meanwhile is not part of it."""
        at = 0
        while at < size:
            at, end = _data(fd, at, size)
            while at < end:
                piece = os.pread(fd, min(end - at, BLOCK), at)
                if not piece:  # it was shortened meanwhile: the rest has become a hole
                    at = end = size
                    break
                self._block += EXTENT.pack(at, len(piece))
                self._block += piece
                self._bytes += len(piece)
                at += len(piece)
                if len(self._block) >= BLOCK:
                    yield self._take()
        self._block += EXTENT.pack(size, 0)

    def _record(
        self, path: bytes, kind: Kind, found: os.stat_result, *, size: int | None = None, target: bytes | None = None
    ) -> None:
        record = Record(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            mtime_ns=found.st_mtime_ns,
            uid=found.st_uid,
            gid=found.st_gid,
            size=size,
            target=target,
        )
        packed = message.pack(record)
        self._block += LENGTH.pack(len(packed))
        self._block += packed
        self._entries += 1


def _data(fd: int, at: int, size: int) -> tuple[int, int]:
    """The next stretch of data at or after `at`; empty, at `size`, when only a hole is left."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        return min(start, size), min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError as e:
        if e.errno == errno.ENXIO:
            return size, size
        if e.errno == errno.EINVAL:  # a file system that knows no holes
            return at, size
        raise


def _ancestors(paths: Iterable[bytes]) -> Iterator[bytes]:
    for path in paths:
        while (cut := path.rfind(b"/")) > 0:
            path = path[:cut]
            yield path
