"""The archive format of initramfs images: cpio, "newc". Small enough to write, and what we write is the same every time."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Final, Self

_MAGIC: Final = "070701"
_TRAILER: Final = "TRAILER!!!"


@dataclass(slots=True)
class CpioWriter:
    """Collects entries and gives out the archive. Everything belongs to root and is as old as 1970."""

    _parts: list[bytes]
    _inode: int = 0

    @classmethod
    def empty(cls) -> Self:
        return cls([])

    def directory(self, name: str, mode: int = 0o755) -> None:
        self._entry(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, content)

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._entry(name, stat.S_IFCHR | mode, b"", major, minor)

    def finish(self) -> bytes:
        """The whole archive. Nothing can be added after."""
        self._entry(_TRAILER, 0, b"")
        return b"".join(self._parts)

    def _entry(self, name: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, major, minor, len(encoded), 0)
        header = _MAGIC.encode() + b"".join(b"%08X" % field for field in fields)
        self._parts += [_padded(header + encoded), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
