"""Bytes a guest wrote, cut into lines fit for a log: bounded, and always valid text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from firebrick.workflow.command.masker import MASK, Masker

LIMIT: Final = 64 << 10
CONTINUED: Final = " [line goes on]"


class LineSplitter:
    """Feed it what comes, in pieces of any size. A line longer than `limit` bytes comes in pieces, each but the last ending in `CONTINUED`.

    No piece ends within what `masker` masks: nobody would find its halves. So a piece may have that much more than `limit`."""

    def __init__(self, limit: int = LIMIT, masker: Masker | None = None) -> None:
        self._limit = limit
        self._masker = masker or Masker()
        self._rest = bytearray()
        self._held = ""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines `data` completes, without their newlines. Consume the iterator before feeding again."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._rest += part
            yield from self._overlong()
            yield self._held + _text(self._rest)
            self._rest.clear()
            self._held = ""
        self._rest += rest
        yield from self._overlong()

    def end(self) -> Iterator[str]:
        """What is left when nothing more comes: a last line without its newline."""
        if self._rest or self._held:
            yield self._held + _text(self._rest)
            self._rest.clear()
            self._held = ""

    def _overlong(self) -> Iterator[str]:
        while len(self._rest) > self._limit:
            cut = _character_boundary(self._rest, self._limit)
            piece = self._rest[:cut]
            del self._rest[:cut]
            if shown := self._split(self._held + _text(piece)):
                yield shown + CONTINUED

    def _split(self, text: str) -> str:
        """As much of the text as can be shown now; the rest is held."""
        at = len(text) - self._masker.longest
        cut = self._masker.boundary(text, at) if at > 0 else 0
        if cut == 0 and len(text) > 2 * (self._limit + self._masker.longest):  # it is one secret after the other
            self._held = text[at:]
            return MASK
        self._held = text[cut:]
        return text[:cut]


def _character_boundary(data: bytearray, at: int) -> int:
    """The last place up to `at` that does not fall into a UTF-8 sequence; `at` itself where the bytes are not UTF-8."""
    for back in range(min(4, at)):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


def _text(line: bytearray) -> str:
    """NUL is replaced too: no terminal, database or JSON reader is glad of it."""
    return line.removesuffix(b"\r").decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
