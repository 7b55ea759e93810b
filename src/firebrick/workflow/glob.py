r"""Patterns of paths, as `hashFiles` and the artifact actions understand them.

`*` and `?` stop at `/`, `**` as a whole segment goes over any number of directories, `[a-z]` is a class, `\\` takes the next character as it is. A
pattern that matches a directory means all that is in it. `!` before a pattern takes out what the ones before it brought in; `#` begins a comment.
Matching takes time proportional to pattern times path at worst, whatever either holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STAR, _ANY = object(), object()


@dataclass(frozen=True, slots=True)
class _Class:
    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def holds(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) is not self.negated


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, of paths relative to the workspace. `segments` holds for each what it is made of, None for `**`."""

    text: str
    negated: bool
    segments: tuple[tuple[object, ...] | None, ...]

    def matches(self, path: str) -> bool:
        """Whether the pattern means the file at `path`, itself or through one of its directories."""
        states = _skip({0}, self.segments)
        for name in path.split("/"):
            if len(self.segments) in states:
                return True
            following: set[int] = set()
            for state in states:
                segment = self.segments[state]
                if segment is None:
                    following.add(state)
                elif _segment_matches(segment, name):
                    following.add(state + 1)
            states = _skip(following, self.segments)
        return len(self.segments) in states


def _skip(states: set[int], segments: Sequence[tuple[object, ...] | None]) -> set[int]:
    """`**` may stand for nothing."""
    reached = set(states)
    for state in states:
        while state < len(segments) and segments[state] is None:
            state += 1
            reached.add(state)
    return reached


def parse_pattern(text: str, workspace: str = "") -> Pattern | None:
    """The pattern in a line, or None for an empty line or a comment. An absolute one must be below `workspace` to mean anything."""
    text = text.strip()
    if not text or text.startswith("#"):
        return None
    negated = False
    while text.startswith("!"):
        negated, text = not negated, text[1:].strip()
    if workspace and (text == workspace or text.startswith(workspace.rstrip("/") + "/")):
        text = text[len(workspace.rstrip("/")) :].lstrip("/")
    parts = [name for name in text.split("/") if name not in {"", "."}]
    # Several `**` in a row mean what one means.
    names = [name for name, before in zip(parts, ["", *parts], strict=False) if name != "**" or before != "**"]
    if text.startswith("/"):
        names.insert(0, "")
    return Pattern(text, negated, tuple(None if name == "**" else _parse_segment(name) for name in names))


def select(patterns: Iterable[str], paths: Iterable[str], workspace: str = "") -> list[str]:
    """Those of `paths` the patterns mean, directory by directory, names in the order of their bytes."""
    parsed = [pattern for text in patterns if (pattern := parse_pattern(text, workspace)) is not None]
    chosen: list[str] = []
    for path in paths:
        taken = False
        for pattern in parsed:
            if pattern.negated == taken and pattern.matches(path):
                taken = not pattern.negated
        if taken:
            chosen.append(path)
    return sorted(chosen, key=lambda path: [name.encode("utf-8", "surrogateescape") for name in path.split("/")])


def _parse_segment(name: str) -> tuple[object, ...]:
    parts: list[object] = []
    at = 0
    while at < len(name):
        character = name[at]
        if character == "[" and (found := _parse_class(name, at + 1)) is not None:
            parts.append(found[0])
            at = found[1]
            continue
        if character == "\\" and at + 1 < len(name):
            at += 1
            parts.append(name[at])
        elif character == "*":
            # Several in a row mean what one means.
            if not parts or parts[-1] is not _STAR:
                parts.append(_STAR)
        else:
            parts.append(_ANY if character == "?" else character)
        at += 1
    return tuple(parts)


def _parse_class(name: str, at: int) -> tuple[_Class, int] | None:
    end = name.find("]", at + 1 if name[at : at + 1] not in {"!", "^"} else at + 2)
    if end < 0:
        return None
    negated = name[at] in "!^"
    body = name[at + 1 if negated else at : end]
    ranges: list[tuple[str, str]] = []
    place = 0
    while place < len(body):
        if body[place + 1 : place + 2] == "-" and place + 2 < len(body):
            ranges.append((body[place], body[place + 2]))
            place += 3
        else:
            ranges.append((body[place], body[place]))
            place += 1
    return _Class(tuple(ranges), negated), end + 1


def _segment_matches(parts: Sequence[object], name: str) -> bool:
    """Greedy, coming back only to the last star: what the stars before it took never needs to change."""
    part = at = 0
    star, star_at = -1, 0
    while at < len(name):
        if part < len(parts) and parts[part] is _STAR:
            star, star_at = part, at
            part += 1
        elif part < len(parts) and _fits(parts[part], name[at]):
            part += 1
            at += 1
        elif star >= 0:
            star_at += 1
            part, at = star + 1, star_at
        else:
            return False
    return all(rest is _STAR for rest in parts[part:])


def _fits(part: object, character: str) -> bool:
    if isinstance(part, _Class):
        return part.holds(character)
    return part is _ANY or part == character
