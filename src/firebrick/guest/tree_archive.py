"""Writing a tree stream of a guest as a tar archive: nothing of it becomes a file of this host, so owners and every bit of a mode can be kept.

The guest is hostile. Names are what the parser let through, numbers are bounded, and holes count as the bytes they become."""

from __future__ import annotations

import os
import tarfile
from typing import Final

from firebrick.guest.errors import TreeError
from firebrick.guest.tree import Record, TreeCount, TreeLimits
from firebrick.guest.tree_parser import TreeParser

_BLOCK: Final = 512
_ZEROS: Final = bytes(1 << 16)
_LATEST_S: Final = (1 << 33) - 1
_HIGHEST_ID: Final = (1 << 32) - 2
_KINDS: Final = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


class TreeArchive:
    """Feed it a tree stream in pieces of any size; the archive goes to the file descriptor `target`, which may be a pipe. Blocking.

    Raises TreeError for a stream that is damaged or exceeds `limits`, whose `bytes` bound what files hold, holes included; and where nobody reads
    the archive any more."""

    def __init__(self, target: int, *, limits: TreeLimits) -> None:
        self._target = target
        self._limits = limits
        self._parser = TreeParser(self, limits)
        self._size = self._at = self._total = 0

    def feed(self, piece: bytes) -> None:
        self._parser.feed(piece)

    def finish(self) -> TreeCount:
        """Say that nothing more comes. Raises TreeError if the stream is not complete."""
        count = self._parser.finish()
        self._write(bytes(2 * _BLOCK))
        return count

    # --- what the parser finds ---

    def entry(self, record: Record, path: list[bytes]) -> None:
        if not path:
            if record.kind != "directory":
                raise TreeError("the root of an archive is no directory")
            return
        size = record.size or 0 if record.kind == "file" else 0
        self._total += size
        if self._total > self._limits.bytes:
            raise TreeError(f"the tree has files of more than {self._limits.bytes} bytes, holes included")
        self._size, self._at = size, 0
        self._write(_header(record, size))

    def data(self, at: int, piece: memoryview) -> None:
        self._fill(at)
        self._write(piece)
        self._at += len(piece)

    def end_file(self) -> None:
        self._fill(self._size)
        self._write(bytes(-self._size % _BLOCK))

    def _fill(self, at: int) -> None:
        """Zeros for a hole."""
        while self._at < at:
            step = min(at - self._at, len(_ZEROS))
            self._write(_ZEROS[:step])
            self._at += step

    def _write(self, piece: bytes | memoryview) -> None:
        try:
            while piece:
                piece = piece[os.write(self._target, piece) :]
        except OSError as error:
            raise TreeError(f"cannot write the archive of the tree: {error}") from error


def _header(record: Record, size: int) -> bytes:
    info = tarfile.TarInfo(os.fsdecode(record.path))
    info.type = _KINDS[record.kind]
    info.mode = record.mode
    info.uid, info.gid = min(record.uid, _HIGHEST_ID), min(record.gid, _HIGHEST_ID)
    info.mtime = min(max(record.mtime_ns // 1_000_000_000, 0), _LATEST_S)
    info.size = size
    info.linkname = os.fsdecode(record.target or b"")
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
