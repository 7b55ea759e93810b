"""Files in a guest by pattern: what artifacts, collected files and `hashFiles` name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from firebrick.guest.client import Entry, Files
from firebrick.guest.errors import AgentError, FileMissingError, NotADirectoryInGuestError
from firebrick.node.context import HOME
from firebrick.node.errors import StepError

ENTRY_LIMIT: Final = 200_000
_MAGIC: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that matched: its path in the guest, and its size. A link to a file is that file."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """`base` is the directory above the first wildcard, or the path itself where there is none."""

    base: str
    regex: re.Pattern[str]
    negative: bool
    literal: bool


def parse_patterns(text: str | Sequence[str], root: str) -> list[Pattern]:
    """One pattern a line: `*`, `?`, `[...]`, `**` over directories, `!` takes back, `#` and blank lines are ignored, relative to `root`."""
    lines = text.splitlines() if isinstance(text, str) else text
    return [_pattern(line.strip(), root) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _pattern(text: str, root: str) -> Pattern:
    negative = text.startswith("!")
    path = text.lstrip("!").strip()
    path = HOME + path[1:] if path == "~" or path.startswith("~/") else path
    path = posixpath.normpath(posixpath.join(root, path))
    match = _MAGIC.search(path)
    base = path if match is None else path[: path.rindex("/", 0, match.start()) + 1].rstrip("/") or "/"
    return Pattern(base, re.compile(_translate(path)), negative, match is None)


def _translate(path: str) -> str:
    """A pattern that matches the path itself and everything below it."""
    out, at = "", 0
    while at < len(path):
        if path.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif path.startswith("**", at):
            out, at = out + ".*", at + 2
        elif path[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif path[at] == "?":
            out, at = out + "[^/]", at + 1
        elif path[at] == "[" and (end := path.find("]", at + 2)) > 0:
            inside = path[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out, at = out + f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]", end + 1
        else:
            out, at = out + re.escape(path[at]), at + 1
    return f"{out}(?:/.*)?\\Z"


async def find_files(files: Files, patterns: Sequence[Pattern], *, hidden: bool = True) -> list[Found]:
    """Every file that matches, each once, sorted by path; the later pattern decides. Links to directories are not followed.

    Raises StepError above 200 000 entries."""
    found: dict[str, Found] = {}
    seen = 0
    for base in _bases([pattern.base for pattern in patterns if not pattern.negative]):
        async for path, entry in _walk(files, base, hidden=hidden):
            seen += 1
            if seen > ENTRY_LIMIT:
                raise StepError(f"cannot look for files below {base}: there are more than {ENTRY_LIMIT} entries")
            if _matches(path, patterns):
                found[path] = Found(path, entry.size)
    return [found[path] for path in sorted(found)]


def _matches(path: str, patterns: Sequence[Pattern]) -> bool:
    decided = False
    for pattern in patterns:
        if pattern.regex.match(path):
            decided = not pattern.negative
    return decided


def _bases(bases: Sequence[str]) -> list[str]:
    """Without those that lie below another."""
    kept: list[str] = []
    for base in sorted(set(bases)):
        if not any(base == above or base.startswith(above.rstrip("/") + "/") for above in kept):
            kept.append(base)
    return kept


async def _walk(files: Files, base: str, *, hidden: bool) -> AsyncIterator[tuple[str, Entry]]:
    """Files at or below `base`, depth first in the order of their names."""
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
            if name.startswith(".") and not hidden:
                continue
            path = posixpath.join(directory, name)
            if entry.kind == "directory":
                below.append(path)
            elif (target := await _file(files, path, entry)) is not None:
                yield path, target
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
