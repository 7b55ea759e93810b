"""A tree stream of entries that lie in no directory of this host as they shall lie in the guest: other names, other owners."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from firebrick.guest import message
from firebrick.guest.tree import END, EXTENT, LENGTH, Record

BLOCK = 1 << 18

TreeEntry = tuple[Record, Iterable[bytes]]
"""A record and, where it is a file, its content in pieces, which must be as long together as the record says."""


class TreePack:
    """The stream of `entries`, parents before children, the root first. Blocking, like the iterables it is given; they are asked in one thread at a
    time. Nothing is checked: the agent does."""

    def __init__(self, entries: Iterable[TreeEntry]) -> None:
        self._entries = entries

    def blocks(self) -> Generator[bytes, None, None]:
        """In blocks of about 256 KiB."""
        block = bytearray()
        for record, content in self._entries:
            packed = message.pack(record)
            block += LENGTH.pack(len(packed)) + packed
            if record.kind == "file":
                for piece in _extents(record.size or 0, content):
                    block += piece
                    if len(block) >= BLOCK:
                        yield bytes(block)
                        block.clear()
        block += END
        yield bytes(block)


def _extents(size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    at = 0
    for piece in content:
        for begin in range(0, len(piece), BLOCK):
            part = piece[begin : begin + BLOCK]
            yield EXTENT.pack(at, len(part)) + part
            at += len(part)
    yield EXTENT.pack(size, 0)
