"""The files `COPY` chooses from: those beside a Dockerfile, or what was taken out of a stage. Whoever made them is hostile: nothing is followed out of
the directory, and nothing is read but regular files."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from firebrick.dockerfile.pattern import Ignored, PatternError, is_pattern, matching
from firebrick.guest.tree import MAX_DEPTH, MAX_PATH

_MOST_ENTRIES: Final = 50_000
_MOST_CHOSEN: Final = 500_000
_MOST_PATTERNS: Final = 200
_MOST_COMPARED: Final = 5_000_000
"""How often a name is compared with a pattern, which is done in some seconds."""

_MOST_LINKS: Final = 40
_BLOCK: Final = 1 << 18


class ContextError(Exception):
    """Files cannot be had as they are asked for. The message is a sentence without its place."""


@dataclass(frozen=True, slots=True)
class File:
    """One entry of a directory: `path` is relative to what was chosen, and empty for that itself; `at` is where it is on this host."""

    path: str
    kind: Literal["file", "directory", "symlink"]
    mode: int
    at: Path
    size: int = 0
    link: str = ""

    def content(self) -> Iterator[bytes]:
        """As long as `size` says, or shorter."""
        fd = os.open(self.at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            left = self.size
            while left and (piece := file.read(min(_BLOCK, left))):
                left -= len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class Chosen:
    """What one source of a `COPY` means: a directory with all below it, in the order of the paths, or one file. `name` is its last component."""

    name: str
    files: tuple[File, ...]

    @property
    def is_directory(self) -> bool:
        return self.files[0].kind == "directory"


class Context:
    """The tree below `root`, without what `.dockerignore` leaves out. Blocking. With `plain`, as it is beside a Dockerfile, modes are those git
    knows, 755 and 644, whatever they became on the way, and names are text. Raises ContextError for more than can be looked through."""

    def __init__(self, root: Path, *, ignored: Ignored | None = None, plain: bool = True) -> None:
        self._root = root
        self._plain = plain
        self._entries = {file.path: file for file in self._walk(ignored)}
        self._paths = sorted(self._entries)
        self._digests: dict[str, bytes] = {}
        self._chosen = self._patterns = self._compared = 0

    def choose(self, sources: Sequence[str]) -> tuple[Chosen, ...]:
        """What these mean, each a plain path or a pattern. Raises ContextError for one that means nothing."""
        found: list[Chosen] = []
        for source in sources:
            for path in self._meant(source):
                found.append(self._one(path))
                self._chosen += len(found[-1].files)
                if self._chosen > _MOST_CHOSEN:
                    raise ContextError(f"all that is copied is more than {_MOST_CHOSEN} files")
        return tuple(found)

    def digest(self, chosen: Sequence[Chosen]) -> str:
        """Of names, modes and contents."""
        total = hashlib.sha256()
        for each in chosen:
            total.update(_packed(b"source", each.name))
            for file in each.files:
                total.update(_packed(file.kind.encode(), file.path, f"{file.mode:o}", file.link))
                if file.kind == "file":
                    total.update(self._content_digest(file))
        return total.hexdigest()

    def _content_digest(self, file: File) -> bytes:
        known = self._digests.get(str(file.at))
        if known is None:
            content = hashlib.sha256()
            for piece in file.content():
                content.update(piece)
            known = self._digests[str(file.at)] = content.digest()
        return known

    # --- what is there ---

    def _walk(self, ignored: Ignored | None) -> Iterator[File]:
        """All entries, ignored ones left out; a directory that is ignored may hold some that are not, and is made for them."""
        yield File("", "directory", 0o755, self._root)
        count = compared = 0
        todo = [""]
        while todo:
            directory = todo.pop()
            for found in self._listed(directory):
                compared += ignored.rules if ignored is not None else 0
                if compared > _MOST_COMPARED:
                    raise ContextError("its directory has too many files for so many lines of what is to be ignored")
                left_out = ignored is not None and ignored.leaves_out(found.path)
                if left_out and ignored is not None and ignored.is_final:
                    continue
                count += 1
                if count > (most := _MOST_ENTRIES if self._plain else _MOST_CHOSEN):
                    raise ContextError(f"its directory has more than {most} files")
                if found.kind == "directory":
                    todo.append(found.path)
                if not left_out:
                    yield found

    def _listed(self, directory: str) -> Iterator[File]:
        if len(directory) > MAX_PATH or directory.count("/") > MAX_DEPTH:
            raise ContextError(f"the directory {directory[:100]!r} is too deep")
        with os.scandir(self._root / directory) as names:
            for each in names:
                path = f"{directory}/{each.name}" if directory else each.name
                if self._plain and not path.isprintable() and not _is_text(path):
                    raise ContextError(f"the name {path[:100]!r} is no text")
                if (file := self._file(path, each)) is not None:
                    yield file

    def _file(self, path: str, entry: os.DirEntry[str]) -> File | None:
        status = entry.stat(follow_symlinks=False)
        at = Path(entry.path)
        if stat.S_ISLNK(status.st_mode):
            return File(path, "symlink", 0o777, at, link=os.readlink(at))  # noqa: PTH115 - as it is written
        mode = status.st_mode & 0o777
        if stat.S_ISDIR(status.st_mode):
            return File(path, "directory", 0o755 if self._plain else mode, at)
        if stat.S_ISREG(status.st_mode):
            return File(path, "file", (0o755 if mode & 0o100 else 0o644) if self._plain else mode, at, status.st_size)
        return None

    # --- what is meant ---

    def _meant(self, source: str) -> list[str]:
        if not is_pattern(source) or source in self._entries:
            return [source]
        self._patterns += 1
        self._compared += len(self._paths)
        if self._patterns > _MOST_PATTERNS or self._compared > _MOST_COMPARED:
            raise ContextError(f"there are more than {_MOST_PATTERNS} patterns, or too many files for them")
        try:
            found = matching(source, self._paths[1:])  # without the directory itself
        except PatternError as error:
            raise ContextError(f"{source!r} {error}") from error
        if not found:
            raise ContextError(f"there is no file {source!r}")
        return found

    def _one(self, path: str) -> Chosen:
        """Links at and on the way to a source are followed, those below a directory are copied."""
        file = self._followed(path)
        name = posixpath.basename(path) if path != "." else ""
        if file.kind == "directory":
            return Chosen(name, tuple(self._below(file.path)))
        return Chosen(name, (File("", file.kind, file.mode, file.at, file.size),))

    def _below(self, directory: str) -> Iterator[File]:
        top = self._entries[directory]
        yield File("", "directory", top.mode, top.at)
        prefix = f"{directory}/" if directory else ""
        made = {""}
        for path in self._paths[bisect_left(self._paths, prefix) :]:
            if not path.startswith(prefix):
                break
            if path == directory or not path:
                continue
            file = self._entries[path]
            relative = path[len(prefix) :]
            yield from self._missing(relative, made, top)
            made.add(relative)
            yield File(relative, file.kind, file.mode, file.at, file.size, file.link)

    def _missing(self, path: str, made: set[str], top: File) -> Iterator[File]:
        """Directories above a path that were left out themselves."""
        names = path.split("/")[:-1]
        for end in range(1, len(names) + 1):
            above = "/".join(names[:end])
            if above not in made:
                made.add(above)
                yield File(above, "directory", 0o755, top.at)

    def _followed(self, path: str) -> File:
        """The file or directory at a path, wherever links within the tree lead. Raises ContextError."""
        at: list[str] = []
        left = [name for name in reversed(path.split("/")) if name not in ("", ".")]
        links = 0
        while left:
            name = left.pop()
            if name == "..":
                if not at:
                    raise ContextError(f"{path!r} leads out of the directory of the Dockerfile")
                at.pop()
                continue
            file = self._entries.get("/".join([*at, name]))
            if file is None:
                raise ContextError(f"there is no file {path!r}")
            if file.kind != "symlink":
                at.append(name)
                continue
            links += 1
            if file.link.startswith("/"):
                raise ContextError(f"{path!r} leads out of the directory of the Dockerfile")
            if links > _MOST_LINKS:
                raise ContextError(f"{path!r} is a link in a circle")
            left += [each for each in reversed(file.link.split("/")) if each not in ("", ".")]
        return self._entries["/".join(at)]


def _packed(*fields: str | bytes) -> bytes:
    """Fields that nothing in them can end early."""
    raw = [field if isinstance(field, bytes) else field.encode(errors="surrogateescape") for field in fields]
    return b"".join(len(each).to_bytes(4, "big") + each for each in raw)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
