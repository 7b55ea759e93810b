"""From text to instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from firebrick.dockerfile.errors import DockerfileError

MAX_BYTES: Final = 256 << 10
_MOST_INSTRUCTIONS: Final = 1000
_MOST_HEREDOCS: Final = 16

_DIRECTIVE: Final = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.*)")
_KEYWORD: Final = re.compile(r"[A-Za-z]+")
_FLAG: Final = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_HEREDOC: Final = re.compile(r"<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_.]*)\2")
_WITH_FLAGS: Final = frozenset({"FROM", "RUN", "COPY", "ADD", "HEALTHCHECK"})
_WITH_HEREDOCS: Final = frozenset({"RUN", "COPY", "ADD"})
_words = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A text that stands in the Dockerfile itself: `<<name`. `expands`: its variables are replaced. `source` is all of it as it was written."""

    name: str
    content: str
    expands: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`line` is where it begins, from 1; `keyword` is in upper case; `text` is what follows the flags, on one line."""

    line: int
    keyword: str
    flags: tuple[tuple[str, str], ...]
    text: str
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def listed(self) -> tuple[str, ...] | None:
        """The words of `["a", "b"]`; None for any other text, which is what whoever writes such a list wrongly gets."""
        if not self.text.startswith("["):
            return None
        try:
            return _words(self.text)
        except msgspec.MsgspecError:
            return None


def read_instructions(content: bytes) -> tuple[tuple[Instruction, ...], str]:
    """All instructions, and the character that escapes. Raises DockerfileError."""
    if len(content) > MAX_BYTES:
        raise DockerfileError(0, f"it has more than {MAX_BYTES >> 10} KiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DockerfileError(0, "it is no text in UTF-8") from error
    if "\0" in text:
        raise DockerfileError(0, "it has a NUL in it")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    escape = _escape(lines)
    reader = _Reader(lines, escape)
    return tuple(reader.instructions()), escape


def _escape(lines: list[str]) -> str:
    """What the directive `escape` says. Directives are the comments before everything else."""
    for number, line in enumerate(lines, start=1):
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            if match[2].strip() not in ("\\", "`"):
                raise DockerfileError(number, "the directive `escape` is neither \\ nor `")
            return match[2].strip()
    return "\\"


class _Reader:
    def __init__(self, lines: list[str], escape: str) -> None:
        self._lines = lines
        self._escape = escape
        self._at = 0

    def instructions(self) -> Iterator[Instruction]:
        count = 0
        while self._at < len(self._lines):
            line = self._lines[self._at].strip()
            if not line or line.startswith("#"):
                self._at += 1
                continue
            count += 1
            if count > _MOST_INSTRUCTIONS:
                raise DockerfileError(self._at + 1, f"it has more than {_MOST_INSTRUCTIONS} instructions")
            yield self._instruction()

    def _instruction(self) -> Instruction:
        line = self._at + 1
        text = self._whole().strip()
        keyword = _KEYWORD.match(text)
        if keyword is None:
            raise DockerfileError(line, f"{text[:40]!r} is no instruction")
        name, rest = keyword[0].upper(), text[keyword.end() :]
        if rest and not rest[0].isspace():
            raise DockerfileError(line, f"{text.split()[0][:40]!r} is no instruction")
        rest = rest.strip()
        flags, rest = _flags(rest) if name in _WITH_FLAGS else ((), rest)
        return Instruction(line=line, keyword=name, flags=flags, text=rest, heredocs=self._heredocs(line, name, rest))

    def _whole(self) -> str:
        """The line, with those it goes on in. Comments and empty lines between them are left out."""
        parts: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if parts and (not line.strip() or line.lstrip().startswith("#")):
                continue
            stripped = line.rstrip()
            if not stripped.endswith(self._escape):
                parts.append(line)
                break
            parts.append(stripped[:-1])
        return "".join(parts)

    def _heredocs(self, line: int, keyword: str, text: str) -> tuple[Heredoc, ...]:
        if keyword not in _WITH_HEREDOCS or "<<" not in text or text.startswith("["):
            return ()
        found = [match for word in text.split() if (match := _HEREDOC.fullmatch(word))]
        if len(found) > _MOST_HEREDOCS:
            raise DockerfileError(line, f"it has more than {_MOST_HEREDOCS} here-documents")
        return tuple(self._heredoc(line, match) for match in found)

    def _heredoc(self, line: int, match: re.Match[str]) -> Heredoc:
        tabs, quote, name = match[1], match[2], match[3]
        begin = self._at
        content: list[str] = []
        while self._at < len(self._lines):
            text = self._lines[self._at]
            self._at += 1
            text = text.lstrip("\t") if tabs else text
            if text == name:
                source = "\n".join(self._lines[begin : self._at])
                return Heredoc(
                    name=name, content="".join(f"{each}\n" for each in content), expands=not quote, source=source
                )
            content.append(text)
        raise DockerfileError(line, f"the here-document {name} has no end")


def is_heredoc(word: str) -> bool:
    return _HEREDOC.fullmatch(word) is not None


def _flags(text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    flags: list[tuple[str, str]] = []
    at = 0
    while match := _FLAG.match(text, at):
        flags.append((match[1], match[2] or ""))
        at = match.end()
    return tuple(flags), text[at:]
