"""The patterns of event filters (`branches`, `tags`, `paths` and their `-ignore`): compiled once, matched in time linear in the text.

`*` is any run of characters but `/`, `**` any run at all, `**/` at the start or after a `/` any number of whole directories, `?` makes the
character before it optional, `+` repeats it, `[ab0-9]` is one of several, a backslash takes what follows as it is. A leading `!` takes back what
patterns before it have taken: of a list the last pattern that matches decides.

A pattern becomes a row of atoms, and a match walks all ways through it at once, as bits of one number: nothing is tried twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_PATTERN = 1_024


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
        if self.characters is None:
            return self.slash or character != "/"
        return any(low <= character <= high for low, high in self.characters)


_STAR = _Atom(None, optional=True, repeats=True)
_STARS = _Atom(None, slash=True, optional=True, repeats=True)


class Pattern:
    """One compiled pattern. `negated` is what its `!` says; `matches` ignores it. Made by `parse_pattern`."""

    def __init__(self, text: str, atoms: Sequence[_Atom], jumps: int, *, negated: bool) -> None:
        self.text = text
        self.negated = negated
        self._atoms = tuple(atoms)
        self._jumps = jumps
        self._optional = sum(1 << index for index, atom in enumerate(atoms) if atom.optional)
        self._repeats = sum(1 << index for index, atom in enumerate(atoms) if atom.repeats)
        self._end = 1 << len(atoms)
        self._start = self._closed(1)
        self._taking: dict[str, int] = {}

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` is of this pattern."""
        states = self._start
        for character in text:
            taking = self._taking.get(character)
            if taking is None:
                taking = self._find_taking(character)
            moved = (states & taking) << 1
            states = self._closed(moved | (states & ((taking & self._repeats) << 1)))
            if not states:
                return False
        return bool(states & self._end)

    def _find_taking(self, character: str) -> int:
        taking = sum(1 << index for index, atom in enumerate(self._atoms) if atom.takes(character))
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
        # The carry of the addition runs through each row of optional atoms from the first place that is reached.
        return states | ((states & self._optional) + self._optional) ^ self._optional


_REMEMBERED = 512


def parse_pattern(text: str) -> Pattern:
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
    return Pattern(text, atoms, jumps, negated=negated)


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


def chosen(patterns: Iterable[Pattern], text: str) -> bool:
    """Whether a list of patterns takes this text: of those that match it, the last one decides."""
    taken = False
    for pattern in patterns:
        if pattern.negated == taken and pattern.matches(text):
            taken = not pattern.negated
    return taken
