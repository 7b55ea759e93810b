"""Files of problem matchers: JSON of a repository into matchers, or into all its mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from firebrick.workflow.command.matcher import MAX_MATCHERS, MAX_PATTERNS, SEVERITIES, Matcher, MatcherError, Pattern

MAX_FILE: Final = 256 << 10
_MAX_REGEXP: Final = 4096
_MAX_PROGRAM: Final = 1000
_MAX_MEMORY: Final = 1 << 20
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_NO_LOOKING: Final = "Look-ahead, look-behind and references back are not available: they take time without bound."
_PROPERTIES: Final = ("file", "fromPath", "line", "column", "severity", "code", "message")


def parse_matchers(data: bytes) -> tuple[Matcher, ...]:
    """The matchers of a file, in its order. Raises MatcherError."""
    if len(data) > MAX_FILE:
        raise MatcherError([f"The file has more than {MAX_FILE >> 10} KiB."])
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MatcherError([f"The file is no JSON: {error}."]) from error
    listed = _member(content, "problemMatcher") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise MatcherError(["The file must hold an object with a list 'problemMatcher' that is not empty."])
    if len(listed) > MAX_MATCHERS:
        raise MatcherError([f"The file has more than {MAX_MATCHERS} matchers."])
    reader = _Reader()
    matchers = [reader.matcher(each, number) for number, each in enumerate(listed, 1)]
    owners = [matcher.owner.lower() for matcher in matchers]
    reader.problems += [f"The owner '{name}' has two matchers." for name in {o for o in owners if owners.count(o) > 1}]
    if reader.problems:
        raise MatcherError(reader.problems)
    return tuple(matchers)


def _member(record: Mapping[str, Any], name: str) -> Any:
    """A property, whose name is found without case."""
    return next((value for key, value in record.items() if key.lower() == name.lower()), None)


@dataclass
class _Reader:
    """Reads the matchers of one file and keeps every mistake."""

    problems: list[str] = field(default_factory=list)
    patterns: int = 0

    def matcher(self, record: Any, number: int) -> Matcher:
        if not isinstance(record, dict):
            self.problems.append(f"Matcher {number} is no object.")
            return Matcher("", ())
        owner = self._text(record, "owner", f"Matcher {number}")
        where = f"Matcher '{owner}'" if owner else f"Matcher {number}"
        if not owner:
            self.problems.append(f"{where}: 'owner' must be set.")
        severity = self._text(record, "severity", where)
        if severity and severity.lower() not in SEVERITIES:
            self.problems.append(
                f"{where}: 'severity' contains unexpected value '{severity}'; it is error, warning or notice."
            )
        patterns = self._patterns(_member(record, "pattern"), where)
        return Matcher(owner, patterns, severity.lower(), self._text(record, "fromPath", where))

    def _text(self, record: Mapping[str, Any], name: str, where: str) -> str:
        value = _member(record, name)
        if value is None or isinstance(value, str):
            return value or ""
        self.problems.append(f"{where}: '{name}' must be a text.")
        return ""

    def _patterns(self, listed: Any, where: str) -> tuple[Pattern, ...]:
        if listed is None or listed == []:
            return ()
        if not isinstance(listed, list):
            self.problems.append(f"{where}: 'pattern' must be a list of patterns.")
            return ()
        self.patterns += len(listed)
        if self.patterns > MAX_PATTERNS:
            self.problems.append(f"{where}: this and the matchers before it have more than {MAX_PATTERNS} patterns.")
            return ()
        seen: set[str] = set()
        patterns = []
        for number, record in enumerate(listed, 1):
            place = f"{where}, pattern {number}"
            if not isinstance(record, dict):
                self.problems.append(f"{place} is no object.")
                continue
            patterns.append(self._pattern(record, place, seen))
            self._check_loop(patterns[-1], place, number, len(listed))
        if "message" not in seen:
            self.problems.append(f"{where}: at least one pattern must set 'message'.")
        return tuple(patterns)

    def _check_loop(self, pattern: Pattern, place: str, number: int, count: int) -> None:
        if not pattern.loop:
            return
        if number < count or count == 1:
            self.problems.append(f"{place}: only the last of several patterns may set 'loop'.")
        if "message" not in pattern.groups:
            self.problems.append(f"{place}: a pattern that sets 'loop' must set 'message'.")

    def _pattern(self, record: Mapping[str, Any], where: str, seen: set[str]) -> Pattern:
        regexp = self._regexp(self._text(record, "regexp", where), where)
        most = regexp.groups if regexp is not None else 0
        groups: dict[str, int] = {}
        for name in _PROPERTIES:
            value = _member(record, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                self.problems.append(f"{where}: '{name}' must be the number of a group.")
            elif regexp is not None and value > most:
                self.problems.append(f"{where}: '{name}' is group {value}, and the expression has {most}.")
            groups[name] = value
            if name in seen:
                self.problems.append(f"{where}: '{name}' is set by an earlier pattern already.")
        seen.update(groups)
        loop = _member(record, "loop")
        if loop is not None and not isinstance(loop, bool):
            self.problems.append(f"{where}: 'loop' must be true or false.")
        return Pattern(regexp, groups, loop is True)

    def _regexp(self, text: str, where: str) -> Any:
        if not text or len(text) > _MAX_REGEXP:
            self.problems.append(f"{where}: 'regexp' must be a text of 1 to {_MAX_REGEXP} characters.")
            return None
        import re2  # few jobs have matchers, and the others do not wait for it

        options = re2.Options()
        options.max_mem, options.log_errors = _MAX_MEMORY, False
        try:
            # As bytes: lines are searched as bytes too, without counting characters.
            compiled = re2.compile(_translated(text).encode(errors="replace"), options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if error.args else ""
            advice = (
                f" {_NO_LOOKING}" if "perl operator" in reason or re.search(r"escape sequence: \\[1-9]", reason) else ""
            )
            self.problems.append(f"{where}: 'regexp' cannot be used: {reason}.{advice}")
            return None
        if compiled.programsize > _MAX_PROGRAM:
            self.problems.append(
                f"{where}: 'regexp' is too large: {compiled.programsize} steps, of {_MAX_PROGRAM} there may be."
            )
            return None
        return compiled


def _translated(regexp: str) -> str:
    """What .NET and JavaScript write and RE2 writes differently: a character by its code, escape, and the end of the text."""

    def escape(match: re.Match[str]) -> str:
        code, character = match.groups()
        if code is not None:
            return f"\\x{{{code}}}"
        return {"e": "\\x1b", "Z": "\\z", "<": "<", ">": ">"}.get(character, match.group())

    return _ESCAPE.sub(escape, regexp)
