"""Bytes on their way in: a directory for each upload, a file for each block, in whatever order they come.

A block is there wholly or not at all: it is written beside its place and renamed. So an upload that was interrupted, by the client's death or by
ours, goes on with the blocks that are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

from firebrick.results.errors import InvalidError, MissingError, QuotaError
from firebrick.results.limits import MOST_BLOCKS
from firebrick.spool import Spool
from firebrick.task import shielded

_PIECE: Final = 1 << 20
_PART: Final = "part-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a client sends. `length` is what it says it will be, None where it does not say; `md5` the digest it gave, if it did."""

    chunks: AsyncIterator[bytes]
    length: int | None = None
    md5: bytes | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """An upload put together: a file that is on the disk, with its digest and size."""

    path: Path
    sha256: str
    size: int


@dataclass(slots=True)
class _Held:
    """What one upload has on the disk."""

    owner: str
    blocks: int
    size: int
    alive: bool = True


class Staging:
    """`most` bounds the bytes of one owner, `free` is what must stay free on the disk. Every process counts for itself: the second bound holds for
    all of them together."""

    def __init__(self, directory: Path, *, most: int, free: int) -> None:
        self._directory = directory
        self._most = most
        self._free = free
        self._reserved = 0
        self._used: dict[str, int] = {}
        self._held: dict[int, _Held] = {}

    async def uploads(self) -> list[int]:
        """Those there is a directory of."""
        return await asyncio.to_thread(self._uploads)

    def _uploads(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        return [int(entry.name) for entry in self._directory.iterdir() if entry.name.isdecimal()]

    async def drop_strays(self, age_s: float) -> None:
        """Remove what a process that was killed was making, if it is older than this."""
        await asyncio.to_thread(self._drop_strays, age_s)

    def _drop_strays(self, age_s: float) -> None:
        for part in self._directory.glob(f"{_PART}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > age_s:
                    part.unlink()

    async def blocks(self, upload: int) -> list[tuple[str, int]]:
        """Names and sizes of the blocks that are there, sorted by name."""
        return await asyncio.to_thread(self._blocks, upload)

    def _blocks(self, upload: int) -> list[tuple[str, int]]:
        place = self._place(upload)
        if not place.is_dir():
            return []
        with os.scandir(place) as found:
            return sorted((file.name, file.stat().st_size) for file in found if not file.name.startswith(_PART))

    async def receive(self, upload: int, owner: str, block: str, body: Body) -> None:
        """Keep one block. One of that name that was there is replaced.

        Raises QuotaError; InvalidError where the content is not what the client said, and whatever `body` does: then nothing is kept."""
        held = await self._hold(upload, owner)
        self._check_room(body.length or 0)
        if self._used[owner] + (body.length or 0) > self._most:
            raise self._too_much()
        target = self._place(upload) / block
        if held.blocks >= MOST_BLOCKS and not target.exists():
            raise InvalidError(f"an upload has at most {MOST_BLOCKS} blocks")
        part = target.with_name(f"{_PART}{secrets.token_hex(8)}")
        await self._write(part, held, body)
        self._put(part, target, held)

    async def assemble(self, upload: int, blocks: Sequence[str]) -> Whole:
        """Put blocks together, in this order. They stay until `discard`. Raises InvalidError where one is missing."""
        there = dict(await self.blocks(upload))
        if any(block not in there for block in blocks):
            raise InvalidError("the specified block list is invalid: a block in it was never received")
        size = sum(there[block] for block in blocks)
        if size > self._most:
            raise self._too_much()
        self._check_room(size)
        self._reserved += size
        try:
            return await asyncio.to_thread(_assemble, self._place(upload), blocks)
        finally:
            self._reserved -= size

    def check_waiting(self, size: int) -> None:
        """Raises QuotaError where so many bytes of one owner, put together and taken by nobody, are too much."""
        if size > self._most:
            raise self._too_much()

    async def make(self, write: Callable[[BinaryIO], None]) -> Whole:
        """A file that `write` fills, in a thread. Raises QuotaError where the disk is full, and what `write` does; then nothing is left."""
        self._check_room(0)
        return await asyncio.to_thread(_make, self._directory / f"{_PART}{secrets.token_hex(8)}", write)

    async def discard(self, upload: int) -> None:
        """Forget all of an upload. Idempotent."""
        if held := self._held.pop(upload, None):
            self._spend(held, -held.size)
            held.alive = False
        await shielded(asyncio.to_thread(shutil.rmtree, self._place(upload), ignore_errors=True))

    async def _hold(self, upload: int, owner: str) -> _Held:
        """What is known of an upload; what an earlier process received of it is counted when it goes on."""
        if upload in self._held:
            return self._held[upload]
        found = await self.blocks(upload)
        if upload not in self._held:  # another one may have looked as well
            size = sum(size for _, size in found)
            self._held[upload] = _Held(owner, len(found), size)
            self._used[owner] = self._used.get(owner, 0) + size
        return self._held[upload]

    def _place(self, upload: int) -> Path:
        return self._directory / str(upload)

    def _put(self, part: Path, target: Path, held: _Held) -> None:
        old = target.stat().st_size if target.exists() else None
        try:
            part.replace(target)
        except FileNotFoundError as error:
            raise _given_up() from error
        self._spend(held, -(old or 0))
        held.blocks += old is None

    async def _write(self, part: Path, held: _Held, body: Body) -> None:
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            with part.open("xb", buffering=0) as file:
                spool = Spool(file, *((digest,) if body.md5 is not None else ()))
                async for chunk in body.chunks:
                    size += len(chunk)
                    self._spend(held, len(chunk))
                    if size // _PIECE != (size - len(chunk)) // _PIECE:
                        self._check_room(0)
                    await spool.write(chunk)
                await spool.flush()
            _check(size, digest.digest(), body)
        except BaseException:
            self._spend(held, -size)
            part.unlink(missing_ok=True)
            raise

    def _spend(self, held: _Held, count: int) -> None:
        if held.alive:
            held.size += count
            self._used[held.owner] += count
        elif count > 0:  # what is written now has no name any more, and would be counted nowhere
            raise _given_up()
        if count > 0 and self._used[held.owner] > self._most:
            raise self._too_much()

    def _too_much(self) -> QuotaError:
        return QuotaError(
            f"what this repository is uploading is more than {self._most >> 20} MiB",
            hint="Upload less at once, or raise `upload_mib` in the [node.results] table of config.toml.",
        )

    def _check_room(self, wanted: int) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(self._directory).free - wanted - self._reserved < self._free:
            raise QuotaError(
                f"the disk of the host has less than {self._free >> 20} MiB left",
                hint="Free some, or lower `free_mib` in the [node.results] table of config.toml.",
            )


def _given_up() -> MissingError:
    return MissingError("the upload was given up while this block came")


def _check(size: int, md5: bytes, body: Body) -> None:
    if body.length is not None and size != body.length:
        raise InvalidError(f"{size} bytes came, and {body.length} were announced")
    if body.md5 is not None and not hmac.compare_digest(md5, body.md5):
        raise InvalidError("the MD5 of what came is not the one that was announced", hint="Send it again.")


def _assemble(place: Path, blocks: Sequence[str]) -> Whole:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / f"{_PART}{secrets.token_hex(8)}"
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb", buffering=0) as whole:
            for block in blocks:
                with (place / block).open("rb", buffering=0) as file:
                    size += _append(file, whole, digest.update)
            os.fsync(whole.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Whole(path, digest.hexdigest(), size)


def _append(source: FileIO, target: FileIO, update: Callable[[bytes], object]) -> int:
    size = 0
    while piece := source.read(_PIECE):
        update(piece)
        target.write(piece)
        size += len(piece)
    return size


def _make(path: Path, write: Callable[[BinaryIO], None]) -> Whole:
    try:
        with path.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            file.seek(0)
            return Whole(path, hashlib.file_digest(file, "sha256").hexdigest(), size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
