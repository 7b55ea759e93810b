"""The patterns of event filters (`branches`, `tags`, `paths` and their `-ignore`): compiled once, matched in time linear in the text.

`*` is any run of characters but `/`, `**` any run at all, `**/` at the start or after a `/` any number of whole directories, `?` makes the
character before it optional, `+` repeats it, `[ab0-9]` is one of several, a backslash takes what follows as it is. A leading `!` takes back what
patterns before it have taken: of a list the last pattern that matches decides.

The patterns of a list become one row of atoms, and a match walks all ways through all of them at once, as bits of one number: nothing is tried twice,
and many patterns take hardly longer than one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PATTERN = 1_024
MAX_LIST = 16_384


class PatternError(ValueError):
    """A text that is no pattern; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class _Atom:
    """One place of a pattern: `characters` None is any (but `/` unless `slash`), else one in the ranges."""

    characters: tuple[tuple[str, str], ...] | None
    slash: bool = False
    optional: bool = False
    repeats: bool = False

    def takes(self, character: str) -> bool:
        """Of an atom with ranges."""
        return any(low <= character <= high for low, high in self.characters or ())


_STAR = _Atom(None, optional=True, repeats=True)
_STARS = _Atom(None, slash=True, optional=True, repeats=True)


class Patterns:
    """A list of patterns, compiled. Made by `parse_patterns`."""

    def __init__(self, rows: Iterable[_Row]) -> None:
        self._ends: list[int] = []
        self._negated: list[bool] = []
        self._optional = self._repeats = self._jumps = self._start = self._final = 0
        self._any = self._below_slash = 0
        self._literal: dict[str, int] = {}
        self._classes: list[tuple[_Atom, int]] = []
        self._taking: dict[str, int] = {}
        place = 0
        for row in rows:
            self._start |= 1 << place
            self._jumps |= row.jumps << place
            for atom in row.atoms:
                self._add(atom, 1 << place)
                place += 1
            self._final |= 1 << place
            self._ends.append(place)
            self._negated.append(row.negated)
            place += 1
        self._start = self._closed(self._start)

    def _add(self, atom: _Atom, bit: int) -> None:
        self._optional |= bit if atom.optional else 0
        self._repeats |= bit if atom.repeats else 0
        if atom.characters is None:
            self._any |= bit if atom.slash else 0
            self._below_slash |= 0 if atom.slash else bit
        elif len(atom.characters) == 1 and atom.characters[0][0] == atom.characters[0][1]:
            character = atom.characters[0][0]
            self._literal[character] = self._literal.get(character, 0) | bit
        else:
            self._classes.append((atom, bit))

    def takes(self, text: str) -> bool:
        """Whether the list takes this text: of the patterns that match all of it, the last one decides."""
        states = self._start
        for character in text:
            taking = self._taking.get(character)
            if taking is None:
                taking = self._find_taking(character)
            moved = (states & taking) << 1
            states = self._closed(moved | (states & ((taking & self._repeats) << 1)))
            if not states:
                return False
        ended = states & self._final
        return bool(ended) and not self._negated[bisect_left(self._ends, ended.bit_length() - 1)]

    def _find_taking(self, character: str) -> int:
        """The atoms that take this character."""
        taking = self._any | self._literal.get(character, 0) | (self._below_slash if character != "/" else 0)
        for atom, bit in self._classes:
            taking |= bit if atom.takes(character) else 0
        if len(self._taking) < _REMEMBERED:
            self._taking[character] = taking
        return taking

    def _closed(self, states: int) -> int:
        """With all places that are reached without a character: past optional atoms, and over `**/`."""
        states = self._past_optional(states)
        if jumping := states & self._jumps:
            states = self._past_optional(states | jumping << 2)
        return states

    def _past_optional(self, states: int) -> int:
        # The carry of the addition runs through each row of optional atoms from the first place that is reached; between two patterns is
        # the end of the first, which is never optional.
        return states | ((states & self._optional) + self._optional) ^ self._optional


_REMEMBERED = 512


def parse_patterns(texts: Iterable[str]) -> Patterns:
    """Raises PatternError."""
    rows = [parse_pattern(text) for text in texts]
    if sum(len(row.atoms) for row in rows) > MAX_LIST:
        raise PatternError(f"The patterns of a list may have at most {MAX_LIST} characters together")
    return Patterns(rows)


@dataclass(frozen=True, slots=True)
class _Row:
    """One pattern: its atoms, and as bits the places from which `**/` may be left out."""

    atoms: tuple[_Atom, ...]
    jumps: int
    negated: bool


def parse_pattern(text: str) -> _Row:
    """Raises PatternError."""
    if len(text) > MAX_PATTERN:
        raise PatternError(f"A pattern may have at most {MAX_PATTERN} characters")
    negated = text.startswith("!")
    body = text[1:] if negated else text
    if not body:
        raise PatternError("A pattern may not be empty")
    atoms: list[_Atom] = []
    jumps = at = 0
    while at < len(body):
        if body.startswith("**/", at) and (at == 0 or body[at - 1] == "/"):
            while body.startswith("**/", at):
                at += 3
            jumps |= 1 << len(atoms)
            atoms += [_STARS, _Atom((("/", "/"),))]
        else:
            at = _parse_atom(body, at, atoms)
    return _Row(tuple(atoms), jumps, negated)


def _parse_atom(body: str, at: int, atoms: list[_Atom]) -> int:
    """Add the atom at this place, or change the one before it; where the next one begins."""
    character = body[at]
    if character == "*":
        end = at + len(body[at:]) - len(body[at:].lstrip("*")) if body.startswith("**", at) else at + 1
        atoms.append(_STARS if end - at > 1 else _STAR)
        return end
    if character in "?+" and atoms:
        last = atoms.pop()
        optional, repeats = last.optional or character == "?", last.repeats or character == "+"
        atoms.append(_Atom(last.characters, last.slash, optional, repeats))
        return at + 1
    if character == "[":
        return _parse_class(body, at + 1, atoms)
    if character == "\\" and at + 1 < len(body):
        at += 1
        character = body[at]
    atoms.append(_Atom(((character, character),)))
    return at + 1


def _parse_class(body: str, at: int, atoms: list[_Atom]) -> int:
    end = body.find("]", at)
    if end < 0:
        raise PatternError("A '[' is not closed")
    if end == at:
        raise PatternError("The brackets '[]' hold no character")
    ranges: list[tuple[str, str]] = []
    while at < end:
        low = high = body[at]
        if body[at + 1] == "-" and at + 2 < end:
            high = body[at + 2]
            at += 2
        if low > high:
            raise PatternError(f"The range '{low}-{high}' is the wrong way round")
        ranges.append((low, high))
        at += 1
    atoms.append(_Atom(tuple(ranges)))
    return end + 1
