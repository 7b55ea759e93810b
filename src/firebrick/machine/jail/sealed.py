"""The memory of a snapshot, as a file that a jailed QEMU can map and nobody can change.

QEMU opens the file it maps its memory from for writing, also where it maps it privately. Of a file that other machines map too, a jail must not
have such a descriptor; and no permission lets a file be opened for writing and not be written. A memory file of the kernel can: it is filled
once, sealed, and opened by any number of machines. It is shared as the snapshot's file would be, and gone with the last of them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.machine import memory
from firebrick.machine.errors import HostError
from firebrick.task import shielded

NAME: Final = "firebrick-memory"
MAPPED: Final = Path(f"/memfd:{NAME}")
"""What the kernel calls it in /proc/PID/maps."""

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(slots=True)
class _Entry:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    fd: int | None = None

    async def fill(self, source: Path) -> None:
        self.fd = await asyncio.to_thread(_sealed_copy, source)


class SealedFiles:
    """One sealed copy of each file that is in use. For the tasks of one event loop."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int], _Entry] = {}

    @asynccontextmanager
    async def open(self, source: Path) -> AsyncIterator[int]:
        """A descriptor of the sealed copy of `source`, which must never change. Raises HostError."""
        facts = source.stat()
        key = (facts.st_dev, facts.st_ino)
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            async with entry.turn:
                if entry.fd is None:
                    await shielded(entry.fill(source))
            assert entry.fd is not None
            yield entry.fd
        finally:
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]
                if entry.fd is not None:
                    os.close(entry.fd)


def _sealed_copy(source: Path) -> int:
    fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            os.ftruncate(fd, size)
            for low, high in memory.data_extents(file.fileno(), size):
                _fill(file.fileno(), fd, low, high)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        raise HostError(
            f"cannot hold the memory of {source.parent} for jailed machines: {error.strerror}",
            hint="It needs as much of the host's memory as the snapshot has.",
        ) from error
    return fd


def _fill(source: int, target: int, low: int, high: int) -> None:
    """Copy [low, high) inside the kernel."""
    os.lseek(target, low, os.SEEK_SET)
    while low < high:
        done = os.sendfile(target, source, low, high - low)
        if done == 0:
            raise OSError(0, "it was cut short while it was read")
        low += done
