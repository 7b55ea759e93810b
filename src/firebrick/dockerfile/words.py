"""Words of an instruction: quotes taken off, variables replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firebrick.dockerfile.errors import DockerfileError

MAX_VALUE: Final = 64 << 10
"""Characters of one text, its variables replaced: some that name each other grow without end."""

_MAX_TOGETHER: Final = 8 << 20
_DEEPEST: Final = 8
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS: Final = (":-", ":+", "-", "+")


def split(text: str, escape: str) -> list[str]:
    """The words of a text, at blanks that no quote is around and nothing escapes. Quotes stay."""
    words: list[str] = []
    begin, quote, at = -1, "", 0
    while at < len(text):
        character = text[at]
        if character == escape and quote != "'" and at + 1 < len(text):
            begin = at if begin < 0 else begin
            at += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character.isspace():
            if begin >= 0:
                words.append(text[begin:at])
                begin = -1
            at += 1
            continue
        elif character in "'\"":
            quote = character
        begin = at if begin < 0 else begin
        at += 1
    return words if begin < 0 else [*words, text[begin:]]


@dataclass(slots=True)
class Budget:
    """How many characters all the texts of a file may still have together, their variables replaced."""

    left: int = _MAX_TOGETHER


class Expander:
    """What a text means where `variables` are set; others are empty. `line` is where it stands."""

    def __init__(self, variables: Mapping[str, str], escape: str, line: int, budget: Budget) -> None:
        self._variables = variables
        self._escape = escape
        self._line = line
        self._budget = budget

    def expand(self, text: str, *, quotes: bool = True) -> str:
        """Without its quotes, and with the values of its variables, which single quotes keep as they are written; with `quotes` off those are
        characters like others. Raises DockerfileError."""
        value, _ = self._until(text, 0, "", 0, quotes=quotes)
        self._budget.left -= len(value)
        if self._budget.left < 0:
            raise DockerfileError(self._line, f"all texts have more than {_MAX_TOGETHER >> 20} MiB together")
        return value

    def _until(self, text: str, at: int, end: str, depth: int, *, quotes: bool) -> tuple[str, int]:
        """From `at` to the character `end`, or to the end of the text where that is empty. Gives where it stopped, too."""
        out: list[str] = []
        size, quote = 0, ""
        while at < len(text):
            character = text[at]
            if end and not quote and character == end:
                return "".join(out), at
            if quotes and character in "'\"" and quote in ("", character):
                quote = "" if quote else character
                at += 1
                continue
            if character == self._escape and quote != "'" and at + 1 < len(text):
                piece, at = self._escaped(text[at + 1], quote, quotes=quotes), at + 2
            elif character == "$" and quote != "'":
                piece, at = self._variable(text, at + 1, depth, quotes=quotes)
            else:
                piece, at = character, at + 1
            size += len(piece)
            if size > MAX_VALUE:
                raise DockerfileError(self._line, f"a value has more than {MAX_VALUE >> 10} KiB")
            out.append(piece)
        if end or quote:
            raise DockerfileError(self._line, f"{end or quote} is missing in {text[:100]!r}")
        return "".join(out), at

    def _escaped(self, character: str, quote: str, *, quotes: bool) -> str:
        """In double quotes, and where quotes mean nothing, most characters need no escape, and keep it."""
        if (quote == '"' or not quotes) and character not in ('"', "$", self._escape):
            return self._escape + character
        return character

    def _variable(self, text: str, at: int, depth: int, *, quotes: bool) -> tuple[str, int]:
        """The value of the variable whose name begins at `at`, and where its text ends."""
        if text[at : at + 1] != "{":
            name = _NAME.match(text, at)
            return (self._variables.get(name[0], ""), name.end()) if name is not None else ("$", at)
        name = _NAME.match(text, at + 1)
        if name is None:
            raise DockerfileError(self._line, f"there is no name of a variable in {text[at - 1 : at + 60]!r}")
        value, after = self._variables.get(name[0]), name.end()
        if text[after : after + 1] == "}":
            return value or "", after + 1
        operator = next((each for each in _OPERATORS if text.startswith(each, after)), None)
        if operator is None:
            raise DockerfileError(
                self._line,
                f"{text[at - 1 : at + 60]!r} is not supported",
                hint="Of a variable there is its value, `${name:-word}`, `${name-word}`, `${name:+word}` and `${name+word}`.",
            )
        if depth == _DEEPEST:
            raise DockerfileError(self._line, f"variables nest more than {_DEEPEST} deep")
        word, closed = self._until(text, after + len(operator), "}", depth + 1, quotes=quotes)
        there = bool(value) if operator[0] == ":" else value is not None
        chosen = (value or "" if there else word) if operator[-1] == "-" else (word if there else "")
        return chosen, closed + 1
