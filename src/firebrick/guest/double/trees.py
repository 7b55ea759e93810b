"""Tree streams from and to the double's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from firebrick.guest import message
from firebrick.guest.double.disk import MemoryDisk, Node, Refusal
from firebrick.guest.errors import TreeError
from firebrick.guest.pattern import matcher
from firebrick.guest.tree import END, EXTENT, LENGTH, Record, TreeCount, TreeLimits
from firebrick.guest.tree_parser import TreeParser


class DiskSource:
    """The tree at `path` as blocks; `count` is right once they are all made."""

    def __init__(self, disk: MemoryDisk, path: bytes, exclude: Sequence[bytes]) -> None:
        self._disk = disk
        self._path = path
        self._excluded = matcher(exclude)
        self.count = TreeCount(0, 0)

    def blocks(self) -> Iterator[bytes]:
        left_out: list[bytes] = []
        for record, node in self._disk.records(self._path):
            if any(record.path.startswith(prefix) for prefix in left_out):
                continue
            if record.path and self._excluded(record.path):
                left_out.append(record.path + b"/")
                continue
            packed = message.pack(record)
            yield LENGTH.pack(len(packed)) + packed
            self.count = TreeCount(self.count.entries + 1, self.count.bytes)
            if record.kind == "file":
                yield from self._extents(node)
        yield END

    def _extents(self, node: Node) -> Iterator[bytes]:
        for at, piece in node.content.stretches():
            yield EXTENT.pack(at, len(piece)) + piece
            self.count = TreeCount(self.count.entries, self.count.bytes + len(piece))
        yield EXTENT.pack(node.content.size, 0)


class DiskTarget:
    """Takes a tree stream into the directory `path`, made if missing. Raises Refusal for a stream that makes no sense."""

    def __init__(self, disk: MemoryDisk, path: bytes, uid: int | None, gid: int | None) -> None:
        self._disk = disk
        self._path = path
        self._owner = (uid, gid)
        self._parser = TreeParser(self, TreeLimits())
        self._file: Node | None = None
        disk.mkdir(path, 0o755, parents=True)

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.feed(piece)
        except TreeError as e:
            raise Refusal("bad_request", str(e)) from e

    def finish(self) -> TreeCount:
        try:
            return self._parser.finish()
        except TreeError as e:
            raise Refusal("bad_request", str(e)) from e

    def entry(self, record: Record, path: list[bytes]) -> None:
        if not path:
            if record.kind != "directory":
                raise TreeError("the root of an upload is a file")
            self._own(self._disk.find(self._path), record)
            return
        self._confine(path[:-1])
        there = self._path.rstrip(b"/") + b"/" + record.path
        if record.kind == "hardlink":
            target = (record.target or b"").split(b"/")
            self._confine(target[:-1])
            self._disk.link(there, self._path.rstrip(b"/") + b"/" + b"/".join(target))
            return
        if record.kind == "directory":
            self._disk.mkdir(there, record.mode, parents=True)
            node = self._disk.find(there, follow=False)
        else:
            node = Node(record.kind, record.mode, target=record.target)
            self._disk.put(there, node, replace=True)
        self._own(node, record)
        self._file = node

    def data(self, at: int, piece: memoryview) -> None:
        assert self._file is not None
        self._file.content.write(at, piece)

    def end_file(self) -> None:
        """The size was set with the record."""

    def _own(self, node: Node, record: Record) -> None:
        uid, gid = self._owner
        node.uid = record.uid if uid is None else uid
        node.gid = record.gid if gid is None else gid
        node.mode = record.mode
        node.mtime_ns = record.mtime_ns
        if record.kind == "file":
            node.content.size = record.size or 0

    def _confine(self, directory: list[bytes]) -> None:
        """Raises TreeError if a directory on the way is a link."""
        at = self._path
        for name in directory:
            at += b"/" + name
            if self._disk.find(at, follow=False).kind != "directory":
                raise TreeError(f"the tree goes through {at!r}, which is no directory")
