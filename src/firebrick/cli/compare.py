"""Two directories of artifacts: which files differ, and where in them. Whoever made the files is not trusted: what is read of them is bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from firebrick.xz import XzFile

_PIECE: Final = 1 << 20
_MOST_BYTES: Final = 256 << 20
_MOST_MEMBERS: Final = 20_000
_MOST_DIRECTORY: Final = 4 << 20
_MOST_SAID: Final = 20
# What the readers of the library raise for files somebody has made up: archives are told apart by none of these, so all of them mean one thing.
_BAD_ARCHIVE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # a recursion without end, a password
    LookupError,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """`path` is relative to both directories; `details` say what is different, a line each."""

    path: str
    details: tuple[str, ...]


class _TooMuchError(ValueError):
    """An archive holds more than is looked at."""


def compare(first: Path, second: Path) -> tuple[int, list[Difference]]:
    """How many files there are, and those that are not the same in both, by name. Blocks while it reads."""
    here, there = _files(first), _files(second)
    found = []
    for name in sorted(here.keys() | there.keys()):
        if name not in here or name not in there:
            found.append(Difference(name, (f"only the {'second' if name not in here else 'first'} run made it",)))
        elif details := tuple(_details(here[name], there[name])):
            found.append(Difference(name, details))
    return len(here.keys() | there.keys()), found


def _files(root: Path) -> dict[str, Path]:
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and not path.is_symlink()}


def _details(first: Path, second: Path) -> Iterator[str]:
    offset = _first_difference(first, second)
    if offset is None:
        return
    sizes = first.stat().st_size, second.stat().st_size
    yield f"{sizes[0]} bytes, {sizes[1]} in the second run" if sizes[0] != sizes[1] else f"{sizes[0]} bytes"
    yield f"the first difference is at byte {offset}: {_around(first, offset)} and {_around(second, offset)}"
    yield from _inside(first, second)


def _first_difference(first: Path, second: Path) -> int | None:
    at = 0
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            left, right = one.read(_PIECE), other.read(_PIECE)
            if left != right:
                return at + next(
                    (i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]),
                    min(len(left), len(right)),
                )
            if not left:
                return None
            at += len(left)


def _around(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(8).hex(" ") or "its end"


# --- archives ---


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of an archive. `facts` are what is said of it besides its contents."""

    facts: Mapping[str, object]
    digest: str


def _inside(first: Path, second: Path) -> Iterator[str]:
    """What differs in archives, where both are of one kind and not too large to be looked into."""
    reader = _reader(first)
    if reader is None or reader is not _reader(second):
        return
    try:
        here, there = reader(first), reader(second)
    except _BAD_ARCHIVE:
        yield "the archive cannot be looked into: it is damaged, or larger than what is read of one"
        return
    said = list(_members(here, there))
    yield from said[:_MOST_SAID]
    if len(said) > _MOST_SAID:
        yield f"and {len(said) - _MOST_SAID} more"
    if not said:
        yield "the files in it are the same: only how they are packed differs"


def _members(here: Mapping[str, _Member], there: Mapping[str, _Member]) -> Iterator[str]:
    for name in sorted(here.keys() | there.keys()):
        if name not in here or name not in there:
            yield f"{name}: only in that of the {'second' if name not in here else 'first'} run"
            continue
        left, right = here[name], there[name]
        changed = [
            f"{key} {value} and {right.facts.get(key)}"
            for key, value in left.facts.items()
            if right.facts.get(key) != value
        ]
        if left.digest != right.digest:
            changed.append("its contents")
        if changed:
            yield f"{name}: {', '.join(changed)}"
    if list(here) != list(there) and here.keys() == there.keys():
        yield "the order of the files"


def _reader(path: Path) -> Callable[[Path], dict[str, _Member]] | None:
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return _zip
    for magic, _ in _PACKED:
        if head.startswith(magic):
            return _tar
    return _tar if head[257:262] == b"ustar" else None


_PACKED: Final[tuple[tuple[bytes, Callable[[Path], Any]], ...]] = (
    (b"\x1f\x8b", gzip.GzipFile),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", XzFile),
)


class _Bounded:
    """A file of which no more than `_MOST_BYTES` are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuchError
        return data


def _tar(path: Path) -> dict[str, _Member]:
    """Of a tar, packed or not; a packed file that is no tar is one member."""
    opener = next((opener for magic, opener in _PACKED if _begins(path, magic)), None)
    try:
        with opener(path) if opener is not None else path.open("rb") as file:
            return _tar_members(_Bounded(file))
    except tarfile.ReadError:
        if opener is None:
            raise
        with opener(path) as file:
            return {"what is packed": _Member({}, _digest(_Bounded(file)))}


def _tar_members(file: Any) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for info in archive:
            if len(found) >= _MOST_MEMBERS:
                raise _TooMuchError
            content = archive.extractfile(info) if info.isreg() else None
            facts = {
                "size": info.size,
                "time": int(info.mtime),
                "mode": oct(info.mode),
                "owner": f"{info.uid}:{info.gid}",
                "link": info.linkname,
            }
            found[info.name] = _Member(facts, _digest(content) if content is not None else "")
    return found


def _zip(path: Path) -> dict[str, _Member]:
    _check_directory(path)
    left = _MOST_BYTES
    found: dict[str, _Member] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            left -= info.file_size
            if left < 0 or len(found) >= _MOST_MEMBERS:
                raise _TooMuchError
            facts = {"size": info.file_size, "time": info.date_time, "mode": oct(info.external_attr >> 16)}
            with archive.open(info) as content:
                found[info.filename] = _Member(facts, _digest(content))
    return found


def _check_directory(path: Path) -> None:
    """The list of a zip's files is read as a whole: see how long it is first. Raises ValueError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22 or struct.unpack_from("<I", tail, at + 12)[0] > _MOST_DIRECTORY:
        raise _TooMuchError


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()
