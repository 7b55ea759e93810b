"""Files in a guest by pattern: what artifacts, collected files and `hashFiles` name."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from firebrick.guest.client import Entry, Files
from firebrick.guest.errors import AgentError, FileMissingError, NotADirectoryInGuestError
from firebrick.node.context import HOME
from firebrick.node.errors import StepError
from firebrick.workflow.glob import Pattern, parse_pattern

ENTRY_LIMIT: Final = 200_000
MOST_PATTERNS: Final = 1000
_LONGEST_PATTERN: Final = 4096
# So many entries are looked at, each with every pattern, before others of this process have their turn.
_AT_A_TIME: Final = 64
_MAGIC: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that matched: its path in the guest, and its size. A link to a file is that file."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Search:
    """A pattern of absolute paths. `base` is the directory above its first wildcard, or the path itself where there is none."""

    base: str
    pattern: Pattern


def parse_searches(text: str | Sequence[str], root: str) -> list[Search]:
    """One pattern a line, relative to `root`: see `firebrick.workflow.glob`. Raises StepError for too many, or one that is too long."""
    lines = text.splitlines() if isinstance(text, str) else text
    if len(lines) > MOST_PATTERNS or max(map(len, lines), default=0) > _LONGEST_PATTERN:
        raise StepError(
            f"cannot look for files: at most {MOST_PATTERNS} patterns of {_LONGEST_PATTERN} characters are looked for at once"
        )
    return [search for line in lines if (search := _search(line.strip(), root)) is not None]


def _search(text: str, root: str) -> Search | None:
    if not text or text.startswith("#"):
        return None
    path = text.lstrip("!").strip()
    path = HOME + path[1:] if path == "~" or path.startswith("~/") else path
    path = posixpath.normpath(posixpath.join(root, path))
    negated = (len(text) - len(text.lstrip("!"))) % 2
    pattern = parse_pattern("!" * negated + path)
    assert pattern is not None
    match = _MAGIC.search(path)
    base = path if match is None else path[: path.rindex("/", 0, match.start()) + 1].rstrip("/") or "/"
    return Search(base, pattern)


async def find_files(files: Files, searches: Sequence[Search], *, hidden: bool = True) -> list[Found]:
    """Every file that matches, each once, sorted by path; the later pattern decides. Links to directories are not followed.

    Raises StepError above 200 000 entries."""
    found: dict[str, Found] = {}
    seen = 0
    for base in _bases([search.base for search in searches if not search.pattern.negated]):
        async for path, entry in _walk(files, base, hidden=hidden):
            seen += 1
            if seen > ENTRY_LIMIT:
                raise StepError(f"cannot look for files below {base}: there are more than {ENTRY_LIMIT} entries")
            if seen % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            if entry is not None and _matches(path, searches):
                found[path] = Found(path, entry.size)
    return [found[path] for path in sorted(found)]


def _matches(path: str, searches: Sequence[Search]) -> bool:
    decided = False
    for search in searches:
        if search.pattern.negated == decided and search.pattern.matches(path):
            decided = not decided
    return decided


def _bases(bases: Sequence[str]) -> list[str]:
    """Without those that lie below another."""
    kept: list[str] = []
    for base in sorted(set(bases), key=lambda base: base.split("/")):  # what lies below one comes right behind it
        if not kept or not base.startswith(kept[-1].rstrip("/") + "/"):
            kept.append(base)
    return kept


async def _walk(files: Files, base: str, *, hidden: bool) -> AsyncIterator[tuple[str, Entry | None]]:
    """What is at or below `base`, depth first in the order of names: files with what they are, and None for the rest, which is counted alike."""
    try:
        top = await files.stat(base)
    except (FileMissingError, NotADirectoryInGuestError):
        return
    if top.kind == "file":
        yield base, top
    pending = [base] if top.kind == "directory" else []
    while pending:
        directory = pending.pop()
        below: list[str] = []
        for entry in await files.list(directory):
            name = _name(entry)
            path = posixpath.join(directory, name)
            if name.startswith(".") and not hidden:
                yield path, None
            elif entry.kind == "directory":
                below.append(path)
                yield path, None
            else:
                yield path, await _file(files, path, entry)
        pending += reversed(below)


def _name(entry: Entry) -> str:
    """Names come from the guest: what could lead elsewhere is refused."""
    name = entry.name.decode(errors="surrogateescape")
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise StepError(f"the guest named a file {name!r}, which cannot be")
    return name


async def _file(files: Files, path: str, entry: Entry) -> Entry | None:
    if entry.kind == "file":
        return entry
    if entry.kind != "symlink":
        return None
    try:
        target = await files.stat(path)
    except AgentError:
        return None
    return target if target.kind == "file" else None
