"""Writing a tree stream of a guest into a local directory. The guest is hostile: nothing it says leads out of the directory.

Every path is walked component by component from the target's own file descriptor with O_NOFOLLOW, so a link that is already there,
or was sent a moment ago, is never followed. Files, links and hard links are always made new, in place of what is no directory. Set-id
and sticky bits and owners are not taken over, and directories stay accessible to their owner, who has to be able to delete them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from firebrick.guest.errors import TreeError
from firebrick.guest.tree import (
    EXTENT,
    LENGTH,
    MAX_DEPTH,
    MAX_EXTENT,
    MAX_PATH,
    MAX_RECORD,
    Record,
    TreeCount,
    TreeLimits,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NAME = 255
_MAX_LINK = 4095

_Parser = Generator[None, bytes, None]
_decode = msgspec.msgpack.Decoder(Record).decode


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
        self._limits = limits
        self._entries = 0
        self._bytes = 0
        self._levels: list[_Level] = []
        self._held = b""
        self._at = 0
        self._complete = False
        self._parser = self._parse()
        next(self._parser)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parser.close()
        while self._levels:
            os.close(self._levels.pop().fd)

    @property
    def count(self) -> TreeCount:
        """What was written so far."""
        return TreeCount(self._entries, self._bytes)

    def feed(self, piece: bytes) -> None:
        """Write what `piece` holds."""
        if self._complete and piece:
            raise TreeError("the guest sent more after the end of a tree")
        try:
            self._parser.send(piece)
        except StopIteration:
            if self._at != len(self._held):
                raise TreeError("the guest sent more after the end of a tree") from None

    def finish(self) -> TreeCount:
        """Say that nothing more comes. Raises TreeError if the stream is not complete."""
        if not self._complete:
            raise TreeError("the guest's tree ends in the middle")
        return self.count

    # --- the stream ---

    def _parse(self) -> _Parser:
        yield
        while size := LENGTH.unpack((yield from self._exactly(LENGTH.size)))[0]:
            if size > MAX_RECORD:
                raise TreeError(f"the guest sent a tree record of {size} bytes, more than {MAX_RECORD}")
            record = _record((yield from self._exactly(size)))
            self._entries += 1
            if self._entries > self._limits.entries:
                raise TreeError(f"the guest's tree has more than {self._limits.entries} entries")
            try:
                yield from self._place(record)
            except OSError as e:
                raise TreeError(f"cannot write {os.fsdecode(record.path)!r} below {self._target}: {e}") from e
        self._leave_to(0)
        self._complete = True

    def _exactly(self, size: int) -> Generator[None, bytes, bytes]:
        while len(self._held) - self._at < size:
            self._held = self._held[self._at :] + (yield)
            self._at = 0
        self._at += size
        return self._held[self._at - size : self._at]

    def _place(self, record: Record) -> _Parser:
        components = _components(record.path)
        if not components:
            yield from self._root(record)
            return
        if not self._levels:
            if self._entries > 1:
                raise TreeError("the guest's tree has entries below a root that is a file")
            self._make_root(None)
        self._go_to(components[:-1])
        parent, name = self._levels[-1].fd, components[-1]
        match record.kind:
            case "directory":
                self._enter(parent, name, record)
            case "file":
                yield from self._file(parent, name, record)
            case "symlink":
                self._symlink(parent, name, record)
            case "hardlink":
                self._hardlink(parent, name, record)

    # --- where ---

    def _root(self, record: Record) -> _Parser:
        if self._entries != 1:
            raise TreeError("the guest's tree has its root in the middle")
        if record.kind == "directory":
            self._make_root(record)
        elif record.kind == "file":
            parent = os.open(self._target.parent, _DIRECTORY & ~os.O_NOFOLLOW)
            try:
                yield from self._file(parent, os.fsencode(self._target.name), record)
            finally:
                os.close(parent)
        else:
            raise TreeError(f"the guest's tree has a {record.kind} for a root")

    def _make_root(self, record: Record | None) -> None:
        made = None
        with suppress(FileExistsError):
            self._target.mkdir(mode=0o700)
            made = record
        self._levels.append(_Level(b"", os.open(self._target, _DIRECTORY & ~os.O_NOFOLLOW), made))

    def _go_to(self, components: list[bytes]) -> None:
        """Make `components` the directory things are put into."""
        same = 0
        while same < min(len(components), len(self._levels) - 1) and components[same] == self._levels[same + 1].name:
            same += 1
        self._leave_to(same + 1)
        for name in components[same:]:
            fd = os.open(name, _DIRECTORY, dir_fd=self._levels[-1].fd)
            self._levels.append(_Level(name, fd, None))

    def _leave_to(self, depth: int) -> None:
        """Close the directories below `depth`. Their mode and time come last: writing into them needs one and changes the other."""
        while len(self._levels) > depth:
            level = self._levels.pop()
            try:
                if level.record is not None:
                    os.fchmod(level.fd, (level.record.mode & 0o777) | 0o700)
                    _set_time(level.fd, level.record)
            finally:
                os.close(level.fd)

    # --- what ---

    def _enter(self, parent: int, name: bytes, record: Record) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        self._levels.append(_Level(name, os.open(name, _DIRECTORY, dir_fd=parent), record))

    def _file(self, parent: int, name: bytes, record: Record) -> _Parser:
        size = record.size
        if size is None or size > self._limits.file_bytes:
            raise TreeError(
                f"the guest sent a file that says it has {size} bytes; {self._limits.file_bytes} are allowed"
            )
        _clear(parent, name)
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            yield from self._extents(fd, size)
            os.ftruncate(fd, size)
            os.fchmod(fd, record.mode & 0o777)
            _set_time(fd, record)
        finally:
            os.close(fd)

    def _extents(self, fd: int, size: int) -> _Parser:
        written = 0
        while True:
            at, length = EXTENT.unpack((yield from self._exactly(EXTENT.size)))
            if length == 0:
                if at != size:
                    raise TreeError(f"the guest ended a file of {size} bytes at {at}")
                return
            if length > MAX_EXTENT or not written <= at <= size - length:
                raise TreeError(
                    f"the guest sent {length} bytes at {at} for a file of {size} bytes, of which {written} were written"
                )
            self._bytes += length
            if self._bytes > self._limits.bytes:
                raise TreeError(f"the guest's tree has more than {self._limits.bytes} bytes")
            yield from self._data(fd, at, length)
            written = at + length

    def _data(self, fd: int, at: int, length: int) -> _Parser:
        """Write an extent as it comes in, without gathering it."""
        while length:
            if self._at == len(self._held):
                self._held = yield
                self._at = 0
                continue
            with memoryview(self._held) as view:
                done = os.pwrite(fd, view[self._at : self._at + length], at)
            self._at += done
            at += done
            length -= done

    def _symlink(self, parent: int, name: bytes, record: Record) -> None:
        target = record.target
        if not target or b"\0" in target or len(target) > _MAX_LINK:
            raise TreeError(f"the guest sent the symbolic link {record.path!r} without a proper target")
        _clear(parent, name)
        os.symlink(target, name, dir_fd=parent)
        _set_time(name, record, parent)

    def _hardlink(self, parent: int, name: bytes, record: Record) -> None:
        components = _components(record.target or b"")
        if not components:
            raise TreeError(f"the guest sent the hard link {record.path!r} without a target")
        directory = os.dup(self._levels[0].fd)
        try:
            for component in components[:-1]:
                below = os.open(component, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = below
            if components != _components(record.path):
                _clear(parent, name)
                os.link(components[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)


def _record(packed: bytes) -> Record:
    try:
        return _decode(packed)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise TreeError(f"the guest sent a tree record that makes no sense: {e}") from e


def _components(path: bytes) -> list[bytes]:
    """The names of a relative path; none for the root. Raises TreeError for whatever could mean another place."""
    if not path:
        return []
    components = path.split(b"/")
    if len(path) > MAX_PATH or len(components) > MAX_DEPTH:
        raise TreeError(f"the guest's tree has a path of {len(path)} bytes and {len(components)} components: too long")
    for component in components:
        if component in (b"", b".", b"..") or b"\0" in component or len(component) > _MAX_NAME:
            raise TreeError(f"the guest's tree has the path {path!r}, which is not below its root")
    return components


def _clear(parent: int, name: bytes) -> None:
    """Make way for a new file or link. A directory stays, and is an error."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def _set_time(what: int | bytes, record: Record, parent: int | None = None) -> None:
    times = (record.mtime_ns, record.mtime_ns)
    if isinstance(what, int):
        os.utime(what, ns=times)
    else:
        os.utime(what, ns=times, dir_fd=parent, follow_symlinks=False)
