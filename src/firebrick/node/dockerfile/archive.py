"""Archives that `ADD` takes apart: unpacked of their compression here, bounded, and of their files by the machine's own `tar`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, Final, Protocol, cast

from firebrick.node.dockerfile.context import ContextError, File

_PIECE: Final = 1 << 16
_MAGIC_AT: Final = 257
_MAGIC: Final = b"ustar"
_XZ_MEMORY: Final = 128 << 20
_BROKEN: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_archive(file: File) -> bool:
    """Whether it is a tar archive, compressed or not, by what is in it."""
    with suppress(*_BROKEN), file.at.open("rb") as raw:
        head = _opened(raw).read(_MAGIC_AT + len(_MAGIC))
        return head[_MAGIC_AT:] == _MAGIC
    return False


def unpacked(file: File, limit: int) -> Iterator[bytes]:
    """The archive itself. Blocking. Raises ContextError for more than `limit` bytes, or where it is damaged."""
    size = 0
    try:
        with file.at.open("rb") as raw:
            reader = _opened(raw)
            while piece := reader.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise ContextError(f"the archive has more than {limit >> 20} MiB")
                yield piece
    except _BROKEN as error:
        raise ContextError(f"the archive is damaged: {error}") from error


def _opened(raw: BinaryIO) -> _Reader:
    """Gives as much as is asked for, but at the end."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast("_Reader", gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic.startswith(b"\xfd7zXZ"):
        return _Xz(raw)
    return raw


class _Xz:
    """The module's own files may take as much memory as the archive says."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        out = bytearray()
        while len(out) < size and not self._xz.eof:
            data = self._raw.read(_PIECE) if self._xz.needs_input else b""
            if not data and self._xz.needs_input:
                raise EOFError("it ends in the middle")
            out += self._xz.decompress(data, size - len(out))
        return bytes(out)
