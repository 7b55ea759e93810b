"""Secrets out of text: each value and the forms it takes when it is encoded, found in one pass and replaced by `***`."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from firebrick.text import encodable

MASK = "***"
MAX_ADDED: Final = 1000
MAX_ADDED_BYTES: Final = 256 << 10
"""An automaton takes some 300 bytes of memory for each byte it looks for."""
MAX_NESTED: Final = 8
"""How many values may each end with the one before: so many matches end at one character."""
# A part of a secret shorter than this is found in innocent text all the time.
_MIN_PART = 6


class MaskLimitError(Exception):
    """More was to be masked than can be."""


class Masker:
    """Masks what it was told. Works on whole lines (or blocks of them): a value of several lines is masked line by line as well, so that
    it does not matter where lines were cut.

    `longest` is how many characters the longest thing has that is looked for. `values` are the secrets of whoever orders the work. What the work
    itself adds is bounded, by `most` values (each line is one), by `most_bytes`, and by how many may be the end of each other; once it was too
    much, everything is masked: what could not be added must not be seen."""

    def __init__(self, values: Iterable[str] = (), *, most: int = MAX_ADDED, most_bytes: int = MAX_ADDED_BYTES) -> None:
        self._values: set[str] = set()
        self._fresh: set[str] = set()
        self._tiers: list[_Tier] = []
        self._left, self._bytes_left = most, most_bytes
        self._limits = f"{most} values, or {most_bytes >> 10} KiB of them"
        self._blind = False
        self.longest = 0
        for value in values:
            self._learn(_parts(value) - self._values)

    def add(self, value: str) -> None:
        """Mask `value` from now on, and each of its lines. An empty one changes nothing. Raises MaskLimitError."""
        new = _parts(value) - self._values
        self._left -= len(new)
        self._bytes_left -= sum(len(each.encode()) for each in new)
        if self._left < 0 or self._bytes_left < 0:
            self._blind = True
            raise MaskLimitError(f"a job can have no more than {self._limits}, masked")
        if new and _nesting(self._values | new) > MAX_NESTED:
            self._blind = True
            raise MaskLimitError(f"more than {MAX_NESTED} masked values are each the end of the next")
        self._learn(new)

    def _learn(self, values: set[str]) -> None:
        self._values |= values
        forms = {form for each in values for form in derived_forms(each)}
        self._fresh |= forms
        self.longest = max((self.longest, *map(len, forms)))

    def __bool__(self) -> bool:
        return self._blind or bool(self._values)

    def mask(self, text: str) -> str:
        """`text` with every secret replaced; secrets that overlap or touch become one `***`. Halves of surrogate pairs become U+FFFD."""
        if self._blind:
            return text and MASK
        self._settle()
        text = encodable(text)
        spans = sorted(span for tier in self._tiers for span in tier.find(text))
        return _replace(text, spans) if spans else text

    def mask_lines(self, lines: Sequence[str]) -> list[str]:
        """What `mask` makes of each line, in one pass over all of them. The lines hold no newlines."""
        if self._blind:
            return [line and MASK for line in lines]
        self._settle()
        text = encodable("\n".join(lines))
        # Of a value of several lines each line is found alone too, and what is cut where must not show.
        spans = [span for tier in self._tiers for span in tier.find(text) if "\n" not in text[slice(*span)]]
        return (_replace(text, sorted(spans)) if spans else text).split("\n")

    def boundary(self, text: str, at: int) -> int:
        """Where a text can be cut so that nothing of what is masked is cut: at `at`, or before what begins before it; 0 where all up to
        there is to be masked."""
        if self._blind:
            return at
        self._settle()
        text = encodable(text)
        cut = at
        for start, end in sorted((span for tier in self._tiers for span in tier.find(text)), reverse=True):
            if start < cut < end:
                cut = start
        return cut

    def _settle(self) -> None:
        """Make what was added a tier, together with the tiers that are not larger. So tiers are few, and no form is built in more often than
        the logarithm of how many there are, however additions and lines take turns."""
        if not self._fresh:
            return
        forms, self._fresh = self._fresh, set()
        while self._tiers and len(self._tiers[-1].forms) <= len(forms):
            forms |= self._tiers.pop().forms
        self._tiers.append(_Tier.of(forms))


@dataclass(frozen=True, slots=True)
class _Tier:
    forms: set[str]
    automaton: AhoCorasick

    @classmethod
    def of(cls, forms: set[str]) -> _Tier:
        # In a fixed order, so that what is built never depends on the hash seed. The kind that is small: values may be long.
        ordered = sorted(forms)
        return cls(forms, AhoCorasick(ordered, MatchKind.Standard, implementation=Implementation.ContiguousNFA))

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        return ((start, end) for _, start, end in self.automaton.find_matches_as_indexes(text, overlapping=True))


def _parts(value: str) -> set[str]:
    """What of a value is masked: all of it, and each line."""
    if not value.strip():
        return set()
    value = encodable(value)
    return {value, *(line.strip() for line in value.replace("\r", "\n").split("\n"))} - {""}


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    kept = 0
    covered = -1
    for start, end in spans:
        if start > covered:
            parts += (text[kept:start], MASK)
        covered = max(covered, end)
        kept = covered
    return "".join((*parts, text[kept:]))


def _nesting(values: set[str]) -> int:
    """The most values that each end with the one before. Read backwards and sorted, a value comes right behind those it ends with."""
    chain: list[str] = []
    deepest = 0
    for value in sorted(each[::-1] for each in values):
        while chain and not value.startswith(chain[-1]):
            chain.pop()
        chain.append(value)
        deepest = max(deepest, len(chain))
    return deepest


def derived_forms(value: str) -> Iterator[str]:
    """`value` itself and how it looks when it was encoded, escaped or cut on the way into a log."""
    yield value
    yield from _base64_forms(value.encode("utf-8", "surrogatepass"))
    yield value.replace('"', '\\"')
    yield value.replace("'", "''")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="", errors="replace")
    escaped = html.escape(value, quote=False)
    yield escaped
    yield escaped.replace('"', "&quot;").replace("'", "&apos;")
    if len(value) > 8 and value[0] == value[-1] == '"':
        yield value[1:-1]
    if "&" in value:
        before, _, after = value.partition("&")
        yield from (part for part in (before, after.lstrip("& ")) if len(part) >= _MIN_PART)


def _base64_forms(data: bytes) -> Iterator[str]:
    """Base64 of the value wherever it begins within what was encoded: in each of the three alignments only what does not depend on the
    bytes before and behind it."""
    yield from _alphabets(base64.b64encode(data).decode())
    for skipped in range(3):
        part = data[skipped:]
        whole = part[: len(part) // 3 * 3]
        if len(whole) >= _MIN_PART:
            yield from _alphabets(base64.b64encode(whole).decode())
        if skipped and len(part) >= _MIN_PART:
            yield from _alphabets(base64.b64encode(part).decode())


def _alphabets(encoded: str) -> Iterator[str]:
    yield encoded
    yield encoded.replace("+", "-").replace("/", "_")
