"""Uploads: begun by an artifact or a cache entry, filled block by block, committed into one content, and taken by what began them.

A commit that is repeated, because its answer was lost, answers the same; one with other blocks is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from firebrick.database import Database
from firebrick.results.blob import BlobStore
from firebrick.results.clock import SECOND, Clock
from firebrick.results.errors import InvalidError, MissingError, QuotaError, TakenError
from firebrick.results.limits import MOST_BLOCKS, MOST_UPLOADS, UPLOAD_S
from firebrick.results.schema import uploads
from firebrick.results.staging import Body, Staging, Whole

_OFFSET_DIGITS: Final = 20
_BLOCK_ID: Final = 128
_WHOLE: Final = "whole"


class Kind(StrEnum):
    ARTIFACT = "artifact"
    CACHE = "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """`sha256` and `size` are of its content once it is committed. `expires_us` is when the artifact it becomes expires."""

    number: int
    tenant: str
    run: str
    job: str
    kind: Kind
    name: str
    mime: str
    scope: str
    version: str
    expires_us: int
    created_us: int
    committed: str | None
    sha256: str | None
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """What an upload is begun with."""

    tenant: str
    run: str
    job: str
    kind: Kind
    name: str
    mime: str = ""
    scope: str = ""
    version: str = ""
    expires_us: int = 0


class Uploads:
    """Any number of calls at once; commits of one upload take turns."""

    def __init__(self, database: Database, blobs: BlobStore, staging: Staging, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._staging = staging
        self._clock = clock
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def begin(self, new: NewUpload, replaced: Callable[[Connection], Sequence[Upload]]) -> int:
        """Begin an upload in place of those that `replaced` gives, and return its number; what that raises is raised, and then nothing has changed.

        Raises QuotaError where the run has too many open."""

        def begin(connection: Connection) -> tuple[int, Sequence[Upload]]:
            stale = replaced(connection)
            for upload in stale:
                self.forget(connection, upload)
            return self._insert(connection, new), stale

        number, stale = await self._database.transact(begin)
        await self._discard_all(stale)
        return number

    def _insert(self, connection: Connection, new: NewUpload) -> int:
        of_run = sa.and_(uploads.c.tenant == new.tenant, uploads.c.run == new.run)
        count = connection.execute(sa.select(sa.func.count()).where(of_run)).scalar_one()
        if count >= MOST_UPLOADS:
            raise QuotaError(f"this run has {MOST_UPLOADS} uploads that are not finished")
        values: dict[str, Any] = {name: getattr(new, name) for name in NewUpload.__dataclass_fields__}
        result = connection.execute(uploads.insert().values(**values, created_us=self._clock()))
        number: int = result.inserted_primary_key[0]  # type: ignore[index]  # SQLite always has one
        return number

    # --- inside the transactions of others ---

    def pending(self, connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[Upload]:
        """Those that fulfil this and are not too old, newest first."""
        query = uploads.select().where(uploads.c.created_us >= self._oldest(), *conditions)
        return [_upload(row) for row in connection.execute(query.order_by(uploads.c.number.desc())).mappings()]

    def forget(self, connection: Connection, upload: Upload) -> None:
        """Its content is taken, or not wanted. What it has on the disk goes with `discard`."""
        connection.execute(uploads.delete().where(uploads.c.number == upload.number))

    # --- of themselves ---

    async def find(self, number: int) -> Upload:
        """Raises MissingError."""
        found = await self._database.transact(lambda c: self.pending(c, uploads.c.number == number))
        if not found:
            raise MissingError("there is no such upload", hint="It was finished, or begun too long ago.")
        return found[0]

    async def discard(self, upload: Upload) -> None:
        """Let go of what an upload has on the disk. Idempotent."""
        await self._staging.discard(upload.number)
        self._turns.pop(upload.number, None)

    async def _discard_all(self, forgotten: Sequence[Upload]) -> None:
        """As `discard`, for those whose content is not wanted: it goes as well, where nothing else has the same."""
        for upload in forgotten:
            await self.discard(upload)
        digests = {upload.sha256 for upload in forgotten if upload.sha256 is not None}
        if digests:
            await self._database.transact(lambda connection: self._blobs.drop_forgotten(connection, digests))

    async def put_block(self, number: int, block_id: str, body: Body) -> None:
        """One block of a list that is committed later. Raises InvalidError, QuotaError, TakenError for an upload that is committed."""
        upload = _open(await self.find(number))
        await self._staging.receive(number, upload.tenant, _block_file(block_id), body)

    async def put_range(self, number: int, start: int, body: Body) -> None:
        """The bytes from `start` on, of `body.length`. As `put_block`."""
        upload = _open(await self.find(number))
        await self._staging.receive(number, upload.tenant, f"at-{start:0{_OFFSET_DIGITS}}", body)

    async def put_whole(self, number: int, body: Body) -> Upload:
        """All of it at once, and commit it. Raises as the others do."""
        upload = await self.find(number)
        if upload.sha256 is not None:
            return await _repeated(upload, body)
        await self._staging.receive(number, upload.tenant, _WHOLE, body)
        return await self._commit(number, [_WHOLE])

    async def commit(self, number: int, block_ids: Sequence[str]) -> Upload:
        """Make these blocks, in this order, the content. Raises InvalidError, TakenError."""
        if len(block_ids) > MOST_BLOCKS:
            raise InvalidError(f"an upload has at most {MOST_BLOCKS} blocks")
        return await self._commit(number, [_block_file(block_id) for block_id in block_ids])

    async def commit_ranges(self, number: int, size: int) -> Upload:
        """Make what `put_range` received the content. Raises InvalidError where that is not `size` bytes without a gap."""
        upload = await self.find(number)
        if upload.sha256 is not None and upload.size == size:
            return upload
        blocks = await self._staging.blocks(number)
        found = [(name, length) for name, length in blocks if name.startswith("at-")]
        end = 0
        for name, length in found:
            if int(name.removeprefix("at-")) != end:
                raise InvalidError(f"the bytes from {end} on are missing")
            end += length
        if end != size:
            raise InvalidError(f"{end} bytes came, and the size is said to be {size}")
        return await self._commit(number, [name for name, _ in found])

    async def _commit(self, number: int, blocks: Sequence[str]) -> Upload:
        name = hashlib.sha256("\n".join(blocks).encode()).hexdigest()
        async with self._turns[number]:
            upload = await self.find(number)
            if upload.committed == name:
                return upload
            whole = await self._staging.assemble(_open(upload).number, blocks)
            values = {"committed": name, "sha256": whole.sha256, "size": whole.size}
            still = sa.and_(uploads.c.number == number, uploads.c.sha256.is_(None))

            def keep(connection: Connection) -> bool:
                self._staging.check_waiting(self._waiting(connection, upload.tenant) + whole.size)
                self._blobs.keep(connection, whole.path, whole.sha256, whole.size)
                return connection.execute(uploads.update().where(still).values(values)).rowcount == 1

            try:
                if not await self._database.transact(keep):
                    raise TakenError("the upload was finished by another request")
            finally:
                whole.path.unlink(missing_ok=True)
        await self._staging.discard(number)
        return await self.find(number)

    def _waiting(self, connection: Connection, tenant: str) -> int:
        """Bytes of contents that are whole, and that nobody has taken."""
        total = sa.func.coalesce(sa.func.sum(uploads.c.size), 0)
        size: int = connection.execute(sa.select(total).where(uploads.c.tenant == tenant)).scalar_one()
        return size

    async def make(self, write: Callable[[BinaryIO], None]) -> Whole:
        """A content of our own making: `write` is called in a thread. Whoever takes it removes the file that is left. Raises QuotaError, and what
        `write` does."""
        return await self._staging.make(write)

    # --- of what was left ---

    async def drop_old(self) -> None:
        """Forget uploads nobody has finished in time, and what is on the disk of those nobody knows."""

        def work(connection: Connection) -> set[int]:
            connection.execute(uploads.delete().where(uploads.c.created_us < self._oldest()))
            return set(connection.scalars(sa.select(uploads.c.number)))

        await self._staging.drop_strays(UPLOAD_S)
        there = await self._staging.uploads()  # first: what comes to be meanwhile is known by then
        known = await self._database.transact(work)
        for number in set(there) - known:
            await self._staging.discard(number)

    def _oldest(self) -> int:
        return self._clock() - UPLOAD_S * SECOND


def _open(upload: Upload) -> Upload:
    if upload.sha256 is not None:
        raise TakenError("the upload is finished: nothing can be added to it")
    return upload


async def _repeated(upload: Upload, body: Body) -> Upload:
    """The client did not hear that it was kept, and sends it again: that is fine if it is the same."""
    digest = hashlib.sha256()
    async for chunk in body.chunks:
        digest.update(chunk)
    if digest.hexdigest() != upload.sha256:
        raise TakenError("the upload is finished, with another content")
    return upload


def _block_file(block_id: str) -> str:
    """A name on the disk for what the client calls its block: any text of at most 128 bytes."""
    raw = block_id.encode(errors="replace")
    if not 1 <= len(raw) <= _BLOCK_ID:
        raise InvalidError(f"a block's id has 1 to {_BLOCK_ID} bytes")
    return f"id-{hashlib.sha256(raw).hexdigest()}"


def _upload(row: RowMapping) -> Upload:
    return Upload(**{**row, "kind": Kind(row["kind"])})
