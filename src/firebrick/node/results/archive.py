"""Zip archives of artifacts: those that clients in guests have made are taken as hostile, ours are plain.

How much is in an archive is known before a byte of it is unpacked, and no more than that is; the table it is known from is bounded before it is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from firebrick.node.errors import StepError

_PIECE: Final = 1 << 20
_LARGEST_TABLE: Final = 8 << 20
_LONGEST_PATH: Final = 4000
DEEPEST: Final = 200
"""Directories within one another: whoever removes a tree goes into each, and has it open."""

# The record at the end of an archive, and its 64-bit form, which a locator before it leads to.
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
# Others may want any amount of memory.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IN_WIDE: Final = 0xFFFFFFFF
_COMMENT: Final = 1 << 16
_BROKEN: Final = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError),
    IndexError,  # of a file whose name is empty
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its path, plain and relative, and its size unpacked."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Unpacked:
    path: str
    size: int
    sha256: str


def read_members(archive: Path) -> list[Member]:
    """The files in it, in its order. Raises StepError for what is no zip, too large to look into, or has a path that leads elsewhere or twice to
    the same place."""
    with _told(), archive.open("rb") as file:
        _check_table(file)
        with zipfile.ZipFile(file) as opened:
            found = [Member(_plain(info.filename), info.file_size) for info in opened.infolist() if not info.is_dir()]
    if len({member.path for member in found}) < len(found):
        raise StepError("the artifact has two files of the same path")
    return found


def unpack(archive: Path, target: Path, members: Sequence[Member]) -> list[Unpacked]:
    """Write these files of the archive below `target`, which is this process's alone. Raises StepError for an archive that is broken."""
    wanted = {member.path for member in members}
    with _told(), zipfile.ZipFile(archive) as opened:
        files = [info for info in opened.infolist() if not info.is_dir() and _plain(info.filename) in wanted]
        return [_extract(opened, info, target) for info in files]


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with an archive, as a StepError."""
    try:
        yield
    except _BROKEN as error:
        raise StepError(f"the artifact is no zip archive that can be read: {error}") from error
    except (NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise StepError("the artifact has a file where it has a directory, too") from error
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENAMETOOLONG,
        ):  # an offset before the file, and a path that is long where we put it
            raise
        raise StepError(f"the artifact is no zip archive that can be unpacked: {error.strerror}") from error


def pack(directory: Path, out: BinaryIO) -> None:
    """All files below `directory` as an archive, stored as they are: who reads it is on the same host."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()):
            archive.write(path, os.fsencode(path.relative_to(directory)).decode(errors="replace"))


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> Unpacked:
    if info.compress_type not in _METHODS:
        raise zipfile.BadZipFile(f"compression method {info.compress_type} is none clients use")
    path, digest, size = _plain(info.filename), hashlib.sha256(), 0
    place = target / path
    place.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, place.open("xb", buffering=0) as out:
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > info.file_size:
                raise zipfile.BadZipFile("more is in it than it says")
            digest.update(piece)
            out.write(piece)
    return Unpacked(path, size, digest.hexdigest())


def _plain(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts) or "\0" in name:
        raise StepError(f"the artifact has a file whose path {name[:200]!r} cannot be kept")
    if len(os.fsencode(name)) > _LONGEST_PATH or len(parts) > DEEPEST:
        raise StepError("the artifact has a file whose path is too long to be kept")
    return name


def _check_table(file: BinaryIO) -> None:
    """The table of what is in the archive is read as a whole: it must be small. Raises StepError, BadZipFile."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _END.size - _COMMENT)
    file.seek(start)
    tail = file.read()
    sizes = [_table_size(file, tail, start, at) for at in _ends(tail)]
    if not sizes:
        raise zipfile.BadZipFile("it has no end record")
    if max(sizes) > _LARGEST_TABLE:
        raise StepError(f"the table of what is in the artifact is larger than {_LARGEST_TABLE >> 20} MiB")


def _ends(tail: bytes) -> list[int]:
    """Where a reader may take the archive to end: at the last record there is, and at one without a comment."""
    places = {tail.rfind(b"PK\5\6"), len(tail) - _END.size}
    return [at for at in places if at >= 0 and tail[at : at + 4] == b"PK\5\6" and len(tail) - at >= _END.size]


def _table_size(file: BinaryIO, tail: bytes, start: int, at: int) -> int:
    size: int = _END.unpack_from(tail, at)[5]
    locator = start + at - _LOCATOR.size
    if locator < _END_64.size:
        return size
    file.seek(locator - _END_64.size)
    wide, pointer = file.read(_END_64.size), file.read(_LOCATOR.size)
    if not pointer.startswith(b"PK\6\7"):
        return size
    if not wide.startswith(b"PK\6\6"):
        raise zipfile.BadZipFile("its 64-bit end record is not at its end")
    wide_size: int = _END_64.unpack(wide)[8]
    return wide_size if size == _IN_WIDE else max(size, wide_size)
