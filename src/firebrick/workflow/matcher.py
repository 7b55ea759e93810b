"""Problem matchers: files that say, in regular expressions, how a tool words its problems; and the search for them in what a step writes.

They come from repositories, which may be hostile. So the expressions are RE2's, which take time in proportion to the line; programs and lines are
bounded, and a matcher that is slow all the same is removed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import re2

MAX_FILE: Final = 256 << 10
MAX_MATCHERS: Final = 64
"""So many a job has at once."""
MAX_PATTERNS: Final = 64
"""So many all matchers of a job have together."""
MAX_LINE: Final = 4096
"""Bytes of a line that are looked at; the rest of a longer one is not."""
SLOW_S: Final = 0.05
"""Processor time one matcher may take for a line: real ones take microseconds. The third line that takes more is its last."""
MAX_SLOW: Final = 3
MAX_SLOW_OF_JOB: Final = 30
"""After so many slow lines a job has no matchers any more, however it spreads them."""
_MAX_REGEXP: Final = 4096
_MAX_PROGRAM: Final = 1000
_MAX_MEMORY: Final = 1 << 20
_MAX_PROBLEMS: Final = 20
_SEVERITIES: Final = ("error", "warning", "notice")
_PROPERTIES: Final = ("file", "fromPath", "line", "column", "severity", "code", "message")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[mK]")
_NO_LOOKING: Final = "Look-ahead, look-behind and references back are not available: they take time without bound."


class MatcherError(Exception):
    """A file of problem matchers is none. `problems` are all its mistakes, a sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)[:_MAX_PROBLEMS]
        super().__init__(" ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a problem. `groups` says which group of the expression holds which property."""

    regexp: Any
    groups: Mapping[str, int]
    loop: bool = False

    def search(self, line: bytes) -> dict[str, str] | None:
        """The properties this line gives, without those whose group took no part; None where it does not match."""
        match = self.regexp.search(line)
        if match is None:
            return None
        found = {name: match.group(number) for name, number in self.groups.items()}
        return {name: value.decode(errors="replace") for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Matcher:
    """What one owner looks for. Without `patterns` it only replaces, that is removes, the owner's earlier matcher."""

    owner: str
    patterns: tuple[Pattern, ...]
    severity: str = ""
    from_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A problem that was found, as the tool has written it. `line` and `column` are None where they are no numbers; `file` may be
    relative to the directory of `from_path`, else to the workspace."""

    severity: str
    message: str
    file: str = ""
    from_path: str = ""
    line: int | None = None
    column: int | None = None
    code: str = ""


# --- the file ---


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

    def matcher(self, record: Any, number: int) -> Matcher:
        if not isinstance(record, dict):
            self.problems.append(f"Matcher {number} is no object.")
            return Matcher("", ())
        owner = self._text(record, "owner", f"Matcher {number}")
        where = f"Matcher '{owner}'" if owner else f"Matcher {number}"
        if not owner:
            self.problems.append(f"{where}: 'owner' must be set.")
        severity = self._text(record, "severity", where)
        if severity and severity.lower() not in _SEVERITIES:
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
        if not isinstance(listed, list) or len(listed) > MAX_PATTERNS:
            self.problems.append(f"{where}: 'pattern' must be a list of at most {MAX_PATTERNS} patterns.")
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


# --- the search ---


class Search:
    """One matcher at work: the lines of a problem that have come so far."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.slow = 0
        self._running: list[dict[str, str] | None] = [None] * len(matcher.patterns)

    def reset(self) -> None:
        self._running = [None] * len(self._running)

    def feed(self, line: bytes) -> Hit | None:
        """The problem this line completes. Patterns are tried from the last to the first: a line that does not continue a problem may
        begin one."""
        patterns = self.matcher.patterns
        for number in reversed(range(len(patterns))):
            before = self._running[number - 1] if number else {}
            if before is None:
                continue
            found = patterns[number].search(line)
            if number < len(patterns) - 1:
                self._running[number] = None if found is None else {**found, **before}
            elif found is not None:
                return self._complete(patterns[number], number, before, found)
            elif number:
                self._running[number - 1] = None
        return None

    def _complete(self, pattern: Pattern, number: int, before: dict[str, str], found: dict[str, str]) -> Hit | None:
        self.reset()
        if pattern.loop:
            self._running[number - 1] = before
        return _hit(self.matcher, {**found, **before})


def _hit(matcher: Matcher, found: Mapping[str, str]) -> Hit | None:
    """None where there is no message, or a severity nobody knows."""
    severity = (found.get("severity") or matcher.severity or "error").lower()
    message = found.get("message", "")
    if not message.strip() or severity not in _SEVERITIES:
        return None
    return Hit(
        severity=severity,
        message=message,
        file=found.get("file", "").strip(),
        from_path=(found.get("fromPath") or matcher.from_path).strip(),
        line=_number(found.get("line")),
        column=_number(found.get("column")),
        code=found.get("code", "").strip(),
    )


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


class MatcherSet:
    """The matchers of a job, the newest first. `clock` gives seconds of processor time."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._searches: tuple[Search, ...] = ()
        self._clock = clock
        self._slow = 0

    def __bool__(self) -> bool:
        return bool(self._searches)

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(search.matcher.owner for search in self._searches)

    def add(self, matchers: Iterable[Matcher]) -> None:
        """Each takes the place of its owner's earlier one. Raises MatcherError, changing nothing, where that is too much."""
        new = tuple(matchers)
        replaced = {matcher.owner.lower() for matcher in new}
        kept = [search for search in self._searches if search.matcher.owner.lower() not in replaced]
        searches = (*(Search(matcher) for matcher in new if matcher.patterns), *kept)
        patterns = sum(len(search.matcher.patterns) for search in searches)
        if len(searches) > MAX_MATCHERS or patterns > MAX_PATTERNS:
            raise MatcherError([f"A job has at most {MAX_MATCHERS} matchers of {MAX_PATTERNS} patterns at once."])
        if searches and self._slow >= MAX_SLOW_OF_JOB:
            raise MatcherError(["The matchers of this job have been slow too often."])
        self._searches = searches

    def remove(self, owners: Iterable[str]) -> tuple[str, ...]:
        """Take away the matchers of these owners; the result is those that had one."""
        gone = {owner.lower() for owner in owners}
        removed = tuple(owner for owner in self.owners if owner.lower() in gone)
        self._searches = tuple(search for search in self._searches if search.matcher.owner.lower() not in gone)
        return removed

    def reset(self) -> None:
        """A step begins: no problem goes on from the one before."""
        for search in self._searches:
            search.reset()

    def feed(self, line: str) -> tuple[Hit | None, tuple[str, ...]]:
        """The problem the line completes, by the newest matcher that finds one, and the owners of matchers that were removed because
        they are slow. A problem ends what all other matchers had begun."""
        data = plain(line).encode(errors="replace")[:MAX_LINE]
        slow: list[str] = []
        found: Hit | None = None
        for search in self._searches:
            began = self._clock()
            found = search.feed(data)
            if self._clock() - began > SLOW_S:
                slow += self._slowed(search)
            if found is not None:
                self._reset_others(search)
                break
        return found, self.remove(slow) if slow else ()

    def _reset_others(self, one: Search) -> None:
        for search in self._searches:
            if search is not one:
                search.reset()

    def _slowed(self, search: Search) -> tuple[str, ...]:
        """Whose matchers go because this one was slow again."""
        search.slow += 1
        self._slow += 1
        if self._slow >= MAX_SLOW_OF_JOB:
            return self.owners
        return (search.matcher.owner,) if search.slow >= MAX_SLOW else ()


def plain(line: str) -> str:
    """The line without colours."""
    return _COLOUR.sub("", line) if "\x1b" in line else line
