"""Archives that `ADD` takes apart: unpacked of their compression here, bounded, and of their files by the machine's own `tar`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from firebrick.node.dockerfile.context import ContextError, File
from firebrick.xz import XzFile

_PIECE: Final = 1 << 16
_MAGIC_AT: Final = 257
_MAGIC: Final = b"ustar"
_BROKEN: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most so many bytes, which are above 0; none at the end."""


_COMPRESSED: Final[tuple[tuple[bytes, Callable[[Path], Any]], ...]] = (
    (b"\x1f\x8b", gzip.GzipFile),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", XzFile),
)


def is_archive(file: File) -> bool:
    """Whether it is a tar archive, compressed or not, by what is in it."""
    with suppress(*_BROKEN), _opened(file.at) as reader:
        return _head(reader, _MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    return False


def unpacked(file: File, limit: int) -> Iterator[bytes]:
    """The archive itself. Blocking. Raises ContextError for more than `limit` bytes, or where it is damaged."""
    size = 0
    try:
        with _opened(file.at) as reader:
            while piece := reader.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise ContextError(f"the archive has more than {limit >> 20} MiB")
                yield piece
    except _BROKEN as error:
        raise ContextError(f"the archive is damaged: {error}") from error


def _opened(path: Path) -> AbstractContextManager[_Reader]:
    with path.open("rb") as file:
        magic = file.read(6)
    kind = next((kind for begin, kind in _COMPRESSED if magic.startswith(begin)), None)
    return kind(path) if kind is not None else path.open("rb")


def _head(reader: _Reader, size: int) -> bytes:
    """That many bytes, or all there are."""
    head = bytearray()
    while len(head) < size and (piece := reader.read(size - len(head))):
        head += piece
    return bytes(head)
