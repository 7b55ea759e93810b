"""Problem matchers: regular expressions that say how a tool words its problems, and the search for those in what a step writes.

They come from repositories, which may be hostile. So the expressions are RE2's, which take time in proportion to the line; expressions and lines are
bounded, and a matcher that is slow all the same is removed. `matcher_file` reads them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

MAX_MATCHERS: Final = 64
"""So many a job has at once."""
MAX_PATTERNS: Final = 64
"""So many all matchers of a job have together."""
MAX_READ: Final = 100
"""So many files of matchers a job may name: each takes the host some milliseconds."""
MAX_LINE: Final = 4096
"""Bytes of a line that are looked at; the rest of a longer one is not."""
SLOW_S: Final = 0.05
"""Processor time one matcher may take for a line: real ones take microseconds. The third line that takes more is its last."""
MAX_SLOW: Final = 3
MAX_SLOW_OF_JOB: Final = 30
"""After so many slow lines a job has no matchers any more, however it spreads them."""
_MAX_PROBLEMS: Final = 20
SEVERITIES: Final = ("error", "warning", "notice")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[mK]")


class MatcherError(Exception):
    """A file of problem matchers is none. `problems` are all its mistakes, a sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)[:_MAX_PROBLEMS]
        super().__init__(" ".join(self.problems))


class Match(Protocol):
    def group(self, number: int, /) -> bytes | None: ...


class Regexp(Protocol):
    """A compiled expression of bytes, that needs no more time than in proportion to them."""

    def search(self, line: bytes, /) -> Match | None: ...


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a problem. `groups` says which group of the expression holds which property."""

    regexp: Regexp
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


class Search:
    """One matcher at work on the lines of one step: the lines of a problem that have come so far."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
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
    if not message.strip() or severity not in SEVERITIES:
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


@dataclass(eq=False, slots=True)
class _Added:
    """A matcher of a job; `slow` counts the lines it was slow for."""

    matcher: Matcher
    slow: int = 0

    @property
    def owner(self) -> str:
        return self.matcher.owner


class MatcherSet:
    """The matchers of a job, the newest first. `clock` gives seconds of processor time."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._added: tuple[_Added, ...] = ()
        self._clock = clock
        self._slow = 0
        self._read = 0

    def __bool__(self) -> bool:
        return bool(self._added)

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(added.owner for added in self._added)

    def count_file(self) -> None:
        """A file of matchers is about to be read. Raises MatcherError where there were too many."""
        self._read += 1
        if self._read > MAX_READ:
            raise MatcherError([f"A job may name {MAX_READ} files of matchers."])

    def add(self, matchers: Iterable[Matcher]) -> None:
        """Each takes the place of its owner's earlier one. Raises MatcherError, changing nothing, where that is too much."""
        new = tuple(matchers)
        replaced = {matcher.owner.lower() for matcher in new}
        kept = [added for added in self._added if added.owner.lower() not in replaced]
        every = (*(_Added(matcher) for matcher in new if matcher.patterns), *kept)
        patterns = sum(len(added.matcher.patterns) for added in every)
        if len(every) > MAX_MATCHERS or patterns > MAX_PATTERNS:
            raise MatcherError([f"A job has at most {MAX_MATCHERS} matchers of {MAX_PATTERNS} patterns at once."])
        if every and self._slow >= MAX_SLOW_OF_JOB:
            raise MatcherError(["The matchers of this job have been slow too often."])
        self._added = every

    def remove(self, owners: Iterable[str]) -> tuple[str, ...]:
        """Take away the matchers of these owners; the result is those that had one."""
        gone = {owner.lower() for owner in owners}
        removed = tuple(owner for owner in self.owners if owner.lower() in gone)
        self._added = tuple(added for added in self._added if added.owner.lower() not in gone)
        return removed

    def reader(self) -> MatcherReader:
        """For the lines of one step. What is added and removed later counts for it too."""
        return MatcherReader(self)

    def _try(self, find: Callable[[Matcher], Hit | None]) -> tuple[Hit | None, tuple[str, ...]]:
        """What the first matcher finds that finds anything, and the owners of those that were removed because they are slow."""
        slow: list[str] = []
        found: Hit | None = None
        for added in self._added:
            began = self._clock()
            found = find(added.matcher)
            if self._clock() - began > SLOW_S:
                slow += self._slowed(added)
            if found is not None:
                break
        return found, self.remove(slow) if slow else ()

    def _slowed(self, added: _Added) -> tuple[str, ...]:
        """Whose matchers go because this one was slow again."""
        added.slow += 1
        self._slow += 1
        if self._slow >= MAX_SLOW_OF_JOB:
            return self.owners
        return (added.owner,) if added.slow >= MAX_SLOW else ()


class MatcherReader:
    """Reads the lines of one step: a problem of several lines does not mix with those of steps that run beside it."""

    def __init__(self, known: MatcherSet) -> None:
        self._known = known
        self._searches: dict[int, Search] = {}  # by the identity of its matcher, which the search keeps alive

    def feed(self, line: str) -> tuple[Hit | None, tuple[str, ...]]:
        """The problem the line completes, by the newest matcher that finds one, and the owners of matchers that were removed because
        they are slow. A problem ends what all other matchers had begun."""
        data = plain(line).encode(errors="replace")[:MAX_LINE]
        return self._known._try(lambda matcher: self._find(matcher, data))  # noqa: SLF001 - two halves of one thing

    def _find(self, matcher: Matcher, data: bytes) -> Hit | None:
        search = self._searches.get(id(matcher))
        if search is None:
            search = self._searches[id(matcher)] = Search(matcher)
        found = search.feed(data)
        if found is not None:
            for other in self._searches.values():
                if other is not search:
                    other.reset()
        return found


def plain(line: str) -> str:
    """The line without colours."""
    return _COLOUR.sub("", line) if "\x1b" in line else line
