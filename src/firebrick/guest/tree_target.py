"""Writing a tree stream of a guest into a local directory. The guest is hostile: nothing it says leads out of the directory.

Every path is walked component by component from the target's own file descriptor with O_NOFOLLOW, so a link that is already there,
or was sent a moment ago, is never followed. Files, links and hard links are always made new, in place of what is no directory. Set-id
and sticky bits and owners are not taken over, and directories stay accessible to their owner, who has to be able to delete them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from firebrick.guest.errors import TreeError
from firebrick.guest.tree import Record, TreeCount, TreeLimits
from firebrick.guest.tree_parser import TreeParser, components

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLLOWED = _DIRECTORY & ~os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """An open directory on the way to where the stream is; `record` is set where its mode and time are still to be applied."""

    name: bytes
    fd: int
    record: Record | None


class TreeTarget:
    """Feed it a tree stream in pieces of any size. Blocking. Use it as a context manager: it holds open files.

    The root of the stream may be a directory, which is made if missing, or a file, which replaces a file. Raises TreeError for a stream
    that is damaged, tries to leave `target` or exceeds `limits`, and for what the local file system refuses.
    """

    def __init__(self, target: Path, *, limits: TreeLimits) -> None:
        self._target = target
        self._parser = TreeParser(self, limits)
        self._levels: list[_Level] = []
        self._file: tuple[int, Record] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file[0])
        while self._levels:
            os.close(self._levels.pop().fd)

    def feed(self, piece: bytes) -> None:
        """Write what `piece` holds."""
        self._parser.feed(piece)

    def finish(self) -> TreeCount:
        """Say that nothing more comes. Raises TreeError if the stream is not complete."""
        count = self._parser.finish()
        with self._named(b""):
            self._leave_to(0)
        return count

    # --- what the parser finds ---

    def entry(self, record: Record, path: list[bytes]) -> None:
        with self._named(record.path):
            if path:
                self._place(record, path)
            else:
                self._root(record)

    def data(self, at: int, piece: memoryview) -> None:
        assert self._file is not None
        fd, record = self._file
        with self._named(record.path):
            while piece:
                done = os.pwrite(fd, piece, at)
                at += done
                piece = piece[done:]

    def end_file(self) -> None:
        assert self._file is not None
        (fd, record), self._file = self._file, None
        with self._named(record.path):
            try:
                os.ftruncate(fd, record.size or 0)
                os.fchmod(fd, record.mode & 0o777)
                os.utime(fd, ns=(record.mtime_ns, record.mtime_ns))
            finally:
                os.close(fd)

    @contextmanager
    def _named(self, path: bytes) -> Iterator[None]:
        """Say of what went wrong here where it went wrong."""
        try:
            yield
        except OSError as e:
            raise TreeError(f"cannot write {os.fsdecode(path) or 'the root'!r} below {self._target}: {e}") from e

    # --- where ---

    def _root(self, record: Record) -> None:
        if record.kind == "directory":
            self._make_root(record)
            return
        parent = os.open(self._target.parent, _FOLLOWED)
        try:
            self._open_file(parent, os.fsencode(self._target.name), record)
        finally:
            os.close(parent)

    def _make_root(self, record: Record | None) -> None:
        """Open the target. Its mode and time are the guest's only if it was made here."""
        made = None
        with suppress(FileExistsError):
            self._target.mkdir(mode=0o700)
            made = record
        self._levels.append(_Level(b"", os.open(self._target, _FOLLOWED), made))

    def _place(self, record: Record, path: list[bytes]) -> None:
        if not self._levels:
            if self._parser.count.entries > 1:
                raise TreeError("the tree has entries below a root that is a file")
            self._make_root(None)
        self._go_to(path[:-1])
        parent, name = self._levels[-1].fd, path[-1]
        match record.kind:
            case "directory":
                self._enter(parent, name, record)
            case "file":
                self._open_file(parent, name, record)
            case "symlink":
                _clear(parent, name)
                os.symlink(record.target or b"", name, dir_fd=parent)
                os.utime(name, ns=(record.mtime_ns, record.mtime_ns), dir_fd=parent, follow_symlinks=False)
            case "hardlink":
                self._hardlink(parent, name, components(record.target or b""))

    def _go_to(self, directory: list[bytes]) -> None:
        """Make `directory` the one things are put into."""
        same = 0
        while same < min(len(directory), len(self._levels) - 1) and directory[same] == self._levels[same + 1].name:
            same += 1
        self._leave_to(same + 1)
        for name in directory[same:]:
            fd = os.open(name, _DIRECTORY, dir_fd=self._levels[-1].fd)
            self._levels.append(_Level(name, fd, None))

    def _leave_to(self, depth: int) -> None:
        """Close the directories below `depth`. Their mode and time come last: writing into them needs one and changes the other."""
        while len(self._levels) > depth:
            level = self._levels.pop()
            try:
                if level.record is not None:
                    os.fchmod(level.fd, (level.record.mode & 0o777) | 0o700)
                    os.utime(level.fd, ns=(level.record.mtime_ns, level.record.mtime_ns))
            finally:
                os.close(level.fd)

    # --- what ---

    def _enter(self, parent: int, name: bytes, record: Record) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        self._levels.append(_Level(name, os.open(name, _DIRECTORY, dir_fd=parent), record))

    def _open_file(self, parent: int, name: bytes, record: Record) -> None:
        _clear(parent, name)
        self._file = os.open(name, _NEW_FILE, 0o600, dir_fd=parent), record

    def _hardlink(self, parent: int, name: bytes, target: list[bytes]) -> None:
        directory = os.dup(self._levels[0].fd)
        try:
            for component in target[:-1]:
                below = os.open(component, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = below
            _clear(parent, name)
            os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)


def _clear(parent: int, name: bytes) -> None:
    """Make way for a new file or link. A directory stays, and is an error."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
