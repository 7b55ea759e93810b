"""Bytes a guest wrote, cut into lines fit for a log: bounded, and always valid text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LIMIT: Final = 64 << 10
CONTINUED: Final = " [line goes on]"


class LineSplitter:
    """Feed it what comes, in pieces of any size. A line longer than `limit` bytes comes in pieces, each but the last ending in `CONTINUED`."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines `data` completes, without their newlines. Consume the iterator before feeding again."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._rest += part
            yield from self._overlong()
            yield _text(self._rest)
            self._rest.clear()
        self._rest += rest
        yield from self._overlong()

    def end(self) -> Iterator[str]:
        """What is left when nothing more comes: a last line without its newline."""
        if self._rest:
            yield _text(self._rest)
            self._rest.clear()

    def _overlong(self) -> Iterator[str]:
        while len(self._rest) > self._limit:
            cut = _character_boundary(self._rest, self._limit)
            piece = self._rest[:cut]
            del self._rest[:cut]
            yield _text(piece) + CONTINUED


def _character_boundary(data: bytearray, at: int) -> int:
    """The last place up to `at` that does not fall into a UTF-8 sequence; `at` itself where the bytes are not UTF-8."""
    for back in range(min(4, at)):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


def _text(line: bytearray) -> str:
    """NUL is replaced too: no terminal, database or JSON reader is glad of it."""
    return line.removesuffix(b"\r").decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
