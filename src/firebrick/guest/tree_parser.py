"""Taking a tree stream apart, wherever what it holds is put. Pure: nothing a sender says is believed, nothing is gathered."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

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

_MAX_NAME = 255
_MAX_LINK = 4095

_Parser = Generator[None, bytes, None]
_decode = msgspec.msgpack.Decoder(Record).decode


class TreeSink(Protocol):
    """Where a tree goes. The calls come in the order of the stream; `data` and `end_file` belong to the file before them."""

    def entry(self, record: Record, path: list[bytes]) -> None:
        """Something new; `path` are its components, checked, none for the root. Parents come before children."""

    def data(self, at: int, piece: memoryview) -> None:
        """Content of the file, in rising order, within its size. `piece` is valid during the call only."""

    def end_file(self) -> None:
        """The file is complete."""


class TreeParser:
    """Feed it a tree stream in pieces of any size. Raises TreeError for one that is damaged, says what it may not, or exceeds the
    limits; after that it is of no further use."""

    def __init__(self, sink: TreeSink, limits: TreeLimits) -> None:
        self._sink = sink
        self._limits = limits
        self._entries = 0
        self._bytes = 0
        self._held = b""
        self._at = 0
        self._complete = False
        self._run = self._parse()
        next(self._run)

    @property
    def count(self) -> TreeCount:
        """What has come so far."""
        return TreeCount(self._entries, self._bytes)

    def feed(self, piece: bytes) -> None:
        if self._complete and piece:
            raise TreeError("the tree goes on after its end")
        try:
            self._run.send(piece)
        except StopIteration:
            if self._at != len(self._held):
                raise TreeError("the tree goes on after its end") from None

    def finish(self) -> TreeCount:
        """Say that nothing more comes. Raises TreeError if the stream is not complete."""
        if not self._complete:
            raise TreeError("the tree ends in the middle")
        return self.count

    def _parse(self) -> _Parser:
        while size := LENGTH.unpack((yield from self._exactly(LENGTH.size)))[0]:
            if size > MAX_RECORD:
                raise TreeError(f"the tree has a record of {size} bytes, more than {MAX_RECORD}")
            record = _record((yield from self._exactly(size)))
            self._entries += 1
            if self._entries > self._limits.entries:
                raise TreeError(f"the tree has more than {self._limits.entries} entries")
            path = components(record.path)
            self._check(record, path)
            self._sink.entry(record, path)
            if record.kind == "file":
                yield from self._extents(record.size or 0)
                self._sink.end_file()
        self._complete = True

    def _check(self, record: Record, path: list[bytes]) -> None:
        if not path and (self._entries != 1 or record.kind not in ("file", "directory")):
            raise TreeError(f"the tree has a {record.kind} for a root, as its entry {self._entries}")
        if record.kind == "file" and (record.size is None or record.size > self._limits.file_bytes):
            raise TreeError(f"the tree has a file of {record.size} bytes; {self._limits.file_bytes} are allowed")
        if record.kind == "hardlink" and (not record.target or components(record.target) == path):
            raise TreeError(f"the tree has the hard link {record.path!r} to {record.target!r}")
        if record.kind == "symlink":
            target = record.target
            if not target or b"\0" in target or len(target) > _MAX_LINK:
                raise TreeError(f"the tree has the symbolic link {record.path!r} without a proper target")

    def _extents(self, size: int) -> _Parser:
        written = 0
        while True:
            at, length = EXTENT.unpack((yield from self._exactly(EXTENT.size)))
            if length == 0:
                if at != size:
                    raise TreeError(f"the tree ends a file of {size} bytes at {at}")
                return
            if length > MAX_EXTENT or not written <= at <= size - length:
                raise TreeError(f"the tree has {length} bytes at {at} for a file of {size} bytes, after {written}")
            self._bytes += length
            if self._bytes > self._limits.bytes:
                raise TreeError(f"the tree has more than {self._limits.bytes} bytes")
            yield from self._data(at, length)
            written = at + length

    def _data(self, at: int, length: int) -> _Parser:
        """Hand an extent on as it comes in."""
        while length:
            if self._at == len(self._held):
                self._held = yield
                self._at = 0
                continue
            with memoryview(self._held) as view, view[self._at : self._at + length] as piece:
                self._sink.data(at, piece)
                done = len(piece)
            self._at += done
            at += done
            length -= done

    def _exactly(self, size: int) -> Generator[None, bytes, bytes]:
        while len(self._held) - self._at < size:
            self._held = self._held[self._at :] + (yield)
            self._at = 0
        self._at += size
        return self._held[self._at - size : self._at]


def _record(packed: bytes) -> Record:
    try:
        return _decode(packed)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise TreeError(f"the tree has a record that makes no sense: {e}") from e


def components(path: bytes) -> list[bytes]:
    """The names of a relative path; none for the root. Raises TreeError for whatever could mean another place."""
    if not path:
        return []
    names = path.split(b"/")
    if len(path) > MAX_PATH or len(names) > MAX_DEPTH:
        raise TreeError(f"the tree has a path of {len(path)} bytes and {len(names)} components: too long")
    for name in names:
        if name in (b"", b".", b"..") or b"\0" in name or len(name) > _MAX_NAME:
            raise TreeError(f"the tree has the path {path!r}, which is not below its root")
    return names
