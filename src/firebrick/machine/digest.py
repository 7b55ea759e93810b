"""The digest of a file that may be sparse: that of its contents, whatever the file system made holes of.

A file is cut into blocks of 64 KiB. SHA-256 takes the size of the file, then the offset and the bytes of every block that is not all zeros. So
holes cost nothing, and a copy that filled them, or made more of them, has the same digest. All numbers are 64 bits, little-endian.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from firebrick.machine.memory import data_extents

BLOCK: Final = 64 << 10
_READ: Final = 4 << 20
_NUMBER: Final = struct.Struct("<Q")
_ZEROS: Final = bytes(BLOCK)


def of_file(path: Path) -> str:
    """As hex digits. Blocks as long as reading takes: call it in a thread. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        total = hashlib.sha256(_NUMBER.pack(size))
        buffer = memoryview(bytearray(_READ))
        for low, high in _runs(fd, size):
            for offset in range(low, high, _READ):
                _take(total, fd, offset, buffer[: min(_READ, high - offset)])
        return total.hexdigest()
    finally:
        os.close(fd)


def _runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where there is data, in whole blocks, rising and apart."""
    begun = ended = 0
    for low, high in data_extents(fd, size):
        first, last = low // BLOCK * BLOCK, min(size, -(-high // BLOCK) * BLOCK)
        if first > ended:
            if ended > begun:
                yield begun, ended
            begun = first
        ended = max(ended, last)
    if ended > begun:
        yield begun, ended


def _take(total: hashlib._Hash, fd: int, offset: int, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        got = os.preadv(fd, [piece[done:]], offset + done)
        if not got:
            raise OSError("it became shorter while it was read")
        done += got
    for at in range(0, len(piece), BLOCK):
        block = bytes(
            piece[at : at + BLOCK]
        )  # views are compared one item after the other: thirty times as slow as the copy
        if block != _ZEROS[: len(block)]:
            total.update(_NUMBER.pack(offset + at))
            total.update(block)
