"""Objects of Git LFS: content that is kept beside a repository, by digest. They come from a repository on this host, which keeps them in `lfs/objects`,
or over the batch API of the server (`lfs_server`). Nothing is taken that has not the digest and the size its pointer says.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from firebrick.confined import OutsideError, open_beneath
from firebrick.forge.address import Address
from firebrick.forge.errors import CloneError
from firebrick.task import shielded

_LONGEST: Final = 1024
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,18})\n"
)
_AT_A_TIME: Final = 100
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pointer:
    """What stands for an object in the repository: its SHA-256 in hex digits, and its size in bytes."""

    oid: str
    size: int


def parse_pointer(content: bytes) -> Pointer | None:
    """None for a file that is none."""
    match = _POINTER.fullmatch(content) if len(content) <= _LONGEST else None
    return None if match is None else Pointer(match["oid"].decode(), int(match["size"]))


async def fetch_objects(addresses: Sequence[Address], pointers: Iterable[Pointer], target: Path) -> None:
    """Put every object into `target`, by its digest; the first address that has it gives it. Raises CloneError where none has one of them."""
    missing = {pointer.oid: pointer for pointer in pointers}
    reason: CloneError | None = None
    for address in addresses:
        if missing and address.scheme == "file":
            await shielded(asyncio.to_thread(_copy_all, Path(address.path), missing, target))
        elif missing and address.scheme in ("https", "http"):
            try:
                await _download_all(address, missing, target)
            except CloneError as error:
                reason = error
    if missing:
        oid = next(iter(missing))
        raise reason or CloneError(
            f"cannot get the LFS object {oid}: no repository that is asked has it",
            hint="In a mirror: git lfs fetch --all.",
        )


def _copy_all(repository: Path, missing: dict[str, Pointer], target: Path) -> None:
    """What a repository on this host has; `missing` has the others afterwards."""
    for root in (repository / "lfs" / "objects", repository / ".git" / "lfs" / "objects"):
        for pointer in tuple(missing.values()):
            oid = pointer.oid
            try:
                with open_beneath(root, f"{oid[:2]}/{oid[2:4]}/{oid}") as source:
                    _copy(source, pointer, target / oid)
            except (OSError, OutsideError):
                continue
            del missing[oid]


def _copy(source: BinaryIO, pointer: Pointer, target: Path) -> None:
    with target.open("wb") as file:
        arrival = Arrival(pointer, file)
        while block := source.read(_BLOCK):
            arrival.take(block)
        arrival.finish()


class Arrival:
    """One object as it arrives in `file`. Raises CloneError as soon as it cannot be the one."""

    def __init__(self, pointer: Pointer, file: BinaryIO) -> None:
        self._pointer = pointer
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def take(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._pointer.size:
            raise CloneError(f"the LFS object {self._pointer.oid} is larger than {self._pointer.size} bytes")
        self._digest.update(block)
        self._file.write(block)

    def finish(self) -> None:
        if self._size != self._pointer.size or self._digest.hexdigest() != self._pointer.oid:
            raise CloneError(f"the LFS object {self._pointer.oid} that was sent is another one")


async def _download_all(address: Address, missing: dict[str, Pointer], target: Path) -> None:
    """What the server has; `missing` has the others afterwards."""
    from firebrick.forge.lfs_server import LfsServer

    async with LfsServer.open(address) as server:
        while missing:
            some = list(missing.values())[:_AT_A_TIME]
            await server.fetch(some, target)
            for pointer in some:
                del missing[pointer.oid]
