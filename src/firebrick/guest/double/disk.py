"""A file system in memory: what the double has for a disk. Paths are bytes and absolute; links are followed as Linux does."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from firebrick.guest.message import Entry, Kind
from firebrick.guest.tree import Record

BLOCK = 1 << 16
_MAX_LINKS = 40


class Refusal(Exception):  # noqa: N818 - it becomes the protocol's `error`
    """The agent's answer to what it cannot do."""

    def __init__(self, code: str, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.number = number


class Content(msgspec.Struct):
    """Bytes of a file, kept in blocks so that holes cost nothing."""

    size: int = 0
    blocks: dict[int, bytearray] = {}

    def write(self, at: int, data: bytes | memoryview) -> None:
        self.size = max(self.size, at + len(data))
        while data:
            index, inside = divmod(at, BLOCK)
            piece = data[: BLOCK - inside]
            block = self.blocks.setdefault(index, bytearray(BLOCK))
            block[inside : inside + len(piece)] = piece
            at += len(piece)
            data = data[len(piece) :]

    def read(self, at: int, limit: int) -> bytes:
        end = min(self.size, at + limit)
        pieces = []
        while at < end:
            index, inside = divmod(at, BLOCK)
            length = min(BLOCK - inside, end - at)
            block = self.blocks.get(index)
            pieces.append(bytes(length) if block is None else bytes(block[inside : inside + length]))
            at += length
        return b"".join(pieces)

    def stretches(self) -> Iterator[tuple[int, bytes]]:
        """What is no hole, in order."""
        for index in sorted(self.blocks):
            if data := self.read(index * BLOCK, BLOCK):
                yield index * BLOCK, data


class Node(msgspec.Struct):
    """A file, directory or symbolic link. A hard link is the same node under another name."""

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    content: Content = msgspec.field(default_factory=Content)
    target: bytes | None = None
    names: dict[bytes, Node] = {}
    links: int = 1

    def entry(self, name: bytes) -> Entry:
        size = self.content.size if self.kind == "file" else len(self.target or b"")
        return Entry(
            name=name,
            kind=self.kind,
            size=size,
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            mtime_ns=self.mtime_ns,
            target=self.target,
            nlink=self.links
            if self.kind != "directory"
            else 2 + sum(n.kind == "directory" for n in self.names.values()),
        )


@dataclass
class MemoryDisk:
    """The file system. Operations raise Refusal with the protocol's code."""

    root: Node = field(default_factory=lambda: Node("directory", 0o755))

    @classmethod
    def furnished(cls) -> MemoryDisk:
        """A disk with the directories every guest has."""
        disk = cls()
        for path in (b"/bin", b"/etc", b"/home", b"/root", b"/run", b"/tmp", b"/usr/bin", b"/var"):
            disk.mkdir(path, 0o755, parents=True)
        disk.find(b"/tmp").mode = 0o1777
        return disk

    # --- finding ---

    def find(self, path: bytes, *, follow: bool = True) -> Node:
        return self._walk(self.root, _names(path), path, follow=follow, links=_MAX_LINKS)

    def _walk(self, base: Node, names: list[bytes], path: bytes, *, follow: bool, links: int) -> Node:
        trail = [base]
        for i, name in enumerate(names):
            last = i == len(names) - 1
            if name == b"..":
                trail = trail[:-1] or [self.root]
                continue
            node = _child(trail[-1], name, path)
            if node.kind == "symlink" and (follow or not last):
                if not links:
                    raise Refusal("io", f"cannot open {_text(path)}: too many symbolic links", errno.ELOOP)
                target = node.target or b""
                start = self.root if target.startswith(b"/") else trail[-1]
                node = self._walk(start, _names(target), path, follow=True, links=links - 1)
            trail.append(node)
        return trail[-1]

    def directory(self, path: bytes) -> Node:
        node = self.find(path)
        if node.kind != "directory":
            raise Refusal("not_a_directory", f"cannot open {_text(path)}: not a directory", errno.ENOTDIR)
        return node

    def file(self, path: bytes) -> Node:
        node = self.find(path)
        if node.kind == "directory":
            raise Refusal("is_a_directory", f"cannot open {_text(path)}: it is a directory", errno.EISDIR)
        return node

    def parent(self, path: bytes, *, make: bool = False) -> tuple[Node, bytes]:
        """The directory something is in, and its name there."""
        names = _names(path)
        if not names or names[-1] == b"..":
            raise Refusal("bad_request", f"cannot work on {_text(path)}: it names no entry of a directory")
        above = b"/" + b"/".join(names[:-1])
        if make:
            self.mkdir(above, 0o755, parents=True)
        return self.directory(above), names[-1]

    # --- changing ---

    def mkdir(self, path: bytes, mode: int, *, parents: bool) -> None:
        if parents:
            at = b""
            for name in _names(path):
                at += b"/" + name
                if not self._exists(at):
                    self.mkdir(at, mode, parents=False)
            if self.find(path).kind != "directory":
                raise Refusal("exists", f"cannot make {_text(path)}: it exists and is no directory", errno.EEXIST)
            return
        self.put(path, Node("directory", mode, mtime_ns=time.time_ns()))

    def put(self, path: bytes, node: Node, *, replace: bool = False) -> None:
        """Enter a node under a name. With `replace` what is no directory makes way."""
        directory, name = self.parent(path)
        there = directory.names.get(name)
        if there is not None and (not replace or there.kind == "directory"):
            raise Refusal("exists", f"cannot make {_text(path)}: it exists", errno.EEXIST)
        directory.names[name] = node

    def link(self, path: bytes, target: bytes) -> None:
        """Enter the file `target` under another name."""
        node = self.find(target, follow=False)
        self.put(path, node, replace=True)
        node.links += 1

    def open(self, path: bytes, *, parents: bool, truncate: bool) -> Node:
        """The file at `path`, made if missing."""
        directory, name = self.parent(path, make=parents)
        if name not in directory.names:
            directory.names[name] = Node("file", 0o644, mtime_ns=time.time_ns())
        node = self.file(path)
        if truncate:
            node.content = Content()
        return node

    def remove(self, path: bytes, *, recursive: bool, missing_ok: bool) -> None:
        try:
            directory, name = self.parent(path)
            node = _child(directory, name, path)
        except Refusal as refusal:
            if missing_ok and refusal.code == "not_found":
                return
            raise
        if node.names and not recursive:
            raise Refusal("not_empty", f"cannot remove {_text(path)}: the directory is not empty", errno.ENOTEMPTY)
        del directory.names[name]
        node.links -= 1

    def move(self, source: bytes, target: bytes, *, overwrite: bool) -> None:
        directory, name = self.parent(source)
        node = _child(directory, name, source)
        there, new = self.parent(target)
        if new in there.names and not overwrite:
            raise Refusal("exists", f"cannot move {_text(source)} to {_text(target)}: it exists", errno.EEXIST)
        before = there.names.get(new)
        if before is not None and before is not node and before.names:
            raise Refusal("not_empty", f"cannot move to {_text(target)}: the directory is not empty", errno.ENOTEMPTY)
        del directory.names[name]
        there.names[new] = node

    def _exists(self, path: bytes) -> bool:
        try:
            self.find(path)
        except Refusal:
            return False
        return True

    # --- trees ---

    def records(self, path: bytes) -> Iterator[tuple[Record, Node]]:
        """The tree at `path`, depth first."""
        first: dict[int, bytes] = {}
        todo = [(b"", self.find(path))]
        while todo:
            relative, node = todo.pop()
            linked = first.setdefault(id(node), relative)
            yield _record(relative, node, linked), node
            below = [(relative + b"/" + name if relative else name, n) for name, n in node.names.items()]
            todo += sorted(below, reverse=True)

    def save(self) -> bytes:
        return msgspec.msgpack.encode(self.root)

    @classmethod
    def load(cls, saved: bytes) -> MemoryDisk:
        return cls(msgspec.msgpack.decode(saved, type=Node))


def _record(path: bytes, node: Node, linked: bytes) -> Record:
    hard = linked != path and node.kind == "file"
    assert node.kind in ("file", "directory", "symlink")
    return Record(
        path=path,
        kind="hardlink" if hard else node.kind,
        mode=node.mode,
        mtime_ns=node.mtime_ns,
        uid=node.uid,
        gid=node.gid,
        size=node.content.size if node.kind == "file" and not hard else None,
        target=linked if hard else node.target,
    )


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _child(directory: Node, name: bytes, path: bytes) -> Node:
    if directory.kind != "directory":
        raise Refusal("not_a_directory", f"cannot open {_text(path)}: a component is no directory", errno.ENOTDIR)
    if name not in directory.names:
        raise Refusal("not_found", f"cannot open {_text(path)}: no such file or directory", errno.ENOENT)
    return directory.names[name]


def _text(path: bytes) -> str:
    return path.decode(errors="replace")
