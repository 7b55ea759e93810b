"""Which files of a context a pattern means: those of `COPY`, and those of `.dockerignore`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import re2

_MOST_PATTERNS: Final = 200
_LONGEST: Final = 1000
IGNORE_BYTES: Final = 64 << 10


class PatternError(ValueError):
    """A pattern that is none, or too long. The message is a sentence without its beginning."""


Matches = Callable[[str], bool]


def _compiled(text: str, *, deep: bool, below: bool = False) -> Matches:
    """Whether a path is meant: `*` and `?` stop at `/`, `[a-z]` is a class, `**` as a name goes over any number of directories where `deep` says
    so; with `below` what is in a directory that is meant is, too. The time it takes grows with the path and no faster. Raises PatternError."""
    if len(text) > _LONGEST:
        raise PatternError(f"has more than {_LONGEST} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        expression = re2.compile(_translated(text, deep=deep) + ("(?:/.*)?" if below else ""), options=options)
    except re2.error as error:
        raise PatternError("is no pattern") from error
    return lambda path: expression.fullmatch(path) is not None


def is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _translated(text: str, *, deep: bool) -> str:
    names = text.split("/")
    out: list[str] = []
    for number, name in enumerate(names):
        last = number == len(names) - 1
        if deep and name == "**":
            out.append(".*" if last else "(?:.*/)?")
        else:
            out.append(_name(name) + ("" if last else "/"))
    return "(?s)" + "".join(out)


def _name(text: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            piece, at = _set(text, at)
            out.append(piece)
        elif character == "\\" and at < len(text):
            out.append(re.escape(text[at]))
            at += 1
        else:
            out.append(re.escape(character))
    return "".join(out)


def _set(text: str, at: int) -> tuple[str, int]:
    end = text.find("]", at + 1)
    if end < 0:
        raise PatternError("has a [ without its ]")
    inside = text[at:end]
    negated = inside[:1] in ("^", "!")
    kept = "".join(c if c.isalnum() or c == "-" else re.escape(c) for c in inside[negated:])
    return f"[{'^/' if negated else ''}{kept}]", end + 1


class Ignored:
    """What `.dockerignore` says; the last pattern that means a path, itself or a directory it is in, decides. Raises PatternError."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, Matches]] = []
        for line in text.splitlines():
            rule = line.strip()
            if not rule or line.startswith("#"):
                continue
            if len(self._rules) == _MOST_PATTERNS:
                raise PatternError(f"has more than {_MOST_PATTERNS} lines")
            kept = rule.startswith("!")
            cleaned = "/".join(name for name in rule[kept:].strip().split("/") if name not in ("", "."))
            if cleaned:
                self._rules.append((kept, _compiled(cleaned, deep=True, below=True)))

    @property
    def rules(self) -> int:
        """How many patterns a path is compared with, at most."""
        return len(self._rules)

    @property
    def is_final(self) -> bool:
        """Whether all below a directory that is left out is left out, too: no pattern brings anything back."""
        return not any(kept for kept, _ in self._rules)

    def leaves_out(self, path: str) -> bool:
        out = False
        for kept, matches in self._rules:
            if out is kept and matches(path):
                out = not kept
        return out


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that `COPY pattern` names. Raises PatternError."""
    matches = _compiled(pattern, deep=False)
    return [path for path in paths if matches(path)]
