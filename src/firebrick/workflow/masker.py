"""Secrets out of text: each value and the forms it takes when it is encoded, found in one pass and replaced by `***`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote
from xml.sax.saxutils import escape

from ahocorasick_rs import AhoCorasick, MatchKind

MASK = "***"
# A part of a secret shorter than this is found in innocent text all the time.
_MIN_PART = 6


class Masker:
    """Masks what it was told. Works on whole lines (or blocks of them): a value of several lines is masked line by line as well, so that
    it does not matter where lines were cut."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._automaton: AhoCorasick | None = None
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Mask `value` from now on, and each of its lines. An empty one changes nothing."""
        values = {value, *(line.strip() for line in value.replace("\r", "\n").split("\n"))} if value.strip() else set()
        forms = {form for each in values - {""} for form in derived_forms(each)}
        if not forms <= self._forms:
            self._forms |= forms
            self._automaton = None

    def __bool__(self) -> bool:
        return bool(self._forms)

    def mask(self, text: str) -> str:
        """`text` with every secret replaced; secrets that overlap or touch become one `***`."""
        if not self._forms:
            return text
        if self._automaton is None:
            # In a fixed order, so that what is built never depends on the hash seed.
            self._automaton = AhoCorasick(sorted(self._forms), matchkind=MatchKind.Standard)
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        return _replace(text, sorted((start, end) for _, start, end in found)) if found else text


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


def derived_forms(value: str) -> Iterator[str]:
    """`value` itself and how it looks when it was encoded, escaped or cut on the way into a log."""
    yield value
    yield from _base64_forms(value.encode("utf-8", "surrogatepass"))
    yield value.replace('"', '\\"')
    yield value.replace("'", "''")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="", errors="replace")
    yield escape(value)
    yield escape(value, {'"': "&quot;", "'": "&apos;"})
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
