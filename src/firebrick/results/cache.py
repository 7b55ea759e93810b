"""Cache entries: contents that later runs may find again, by key and version, within the scopes they may read.

Keys are compared without case, as GitHub's service does, and answered as they were written. In each scope, in turn, each key is tried as it is, then
as the beginning of others, the newest of which wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from firebrick.database import Database
from firebrick.eviction import Limit, surplus
from firebrick.results.blob import BlobStore
from firebrick.results.clock import SECOND, Clock
from firebrick.results.errors import DeniedError, InvalidError, MissingError, QuotaError, TakenError
from firebrick.results.limits import DAY_S, MOST_ENTRIES, ResultsLimits
from firebrick.results.name import check_cache_key, check_cache_keys, check_version
from firebrick.results.schema import entries, uploads
from firebrick.results.scope import PULL
from firebrick.results.token import Grant
from firebrick.results.upload import Kind, NewUpload, Upload, Uploads

# Clients know these words, and take what follows them for a decision rather than an accident.
_WRITE_DENIED = "cache write denied:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    number: int
    tenant: str
    scope: str
    key: str
    folded: str
    version: str
    sha256: str
    size: int
    created_us: int
    used_us: int


class Cache:
    """The cache entries of all tenants. A grant reads and writes those of its own, in its scopes."""

    def __init__(
        self, database: Database, blobs: BlobStore, uploads: Uploads, limits: ResultsLimits, clock: Clock
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._limits = limits
        self._clock = clock

    async def lookup(self, grant: Grant, keys: Sequence[str], version: str) -> Entry | None:
        """The entry the first of `keys` that has one stands for, noted as used now. Raises InvalidError."""
        wanted = [_fold(key) for key in check_cache_keys(list(keys))]
        check_version(version)

        def search(connection: Connection) -> Entry | None:
            for scope in grant.read:
                for folded in wanted:
                    if found := self._match(connection, grant, scope, folded, version):
                        used = entries.update().where(entries.c.number == found.number).values(used_us=self._clock())
                        connection.execute(used)
                        return found
            return None

        return await self._database.transact(search)

    async def find_all(self, grant: Grant, key: str, *, most: int = 100) -> list[Entry]:
        """Entries whose key begins so, of any version, in what the grant reads; newest first."""
        folded = _fold(check_cache_key(key))
        query = (
            entries.select()
            .where(entries.c.tenant == grant.tenant, entries.c.scope.in_(grant.read), _begins(folded))
            .order_by(entries.c.number.desc())
            .limit(most)
        )
        return await self._database.transact(lambda c: [_entry(row) for row in c.execute(query).mappings()])

    async def reserve(self, grant: Grant, key: str, version: str, *, size: int | None = None) -> int:
        """Begin the upload of an entry, and return its number. `size` is what the client says it will be.

        Raises DeniedError for a grant that writes nothing, InvalidError, TakenError where the scope has or is about to get the same, QuotaError."""
        if grant.write is None:
            raise DeniedError(f"{_WRITE_DENIED} this run works on what others propose, and may not write any cache")
        if size is not None and size > self._limits.cache_bytes:
            raise QuotaError(f"a cache of {size} bytes is over the limit of {self._limits.cache_mib} MiB")
        new = NewUpload(
            tenant=grant.tenant,
            run=grant.run,
            job=grant.job,
            kind=Kind.CACHE,
            name=check_cache_key(key),
            scope=grant.write,
            version=check_version(version),
        )

        def replaced(connection: Connection) -> list[Upload]:
            if self._exact(connection, grant, new.scope, _fold(key), version):
                raise _taken(key)
            pending = self._pending(connection, grant, key, version)
            if any((upload.run, upload.job) != (grant.run, grant.job) for upload in pending):
                raise _taken(key)
            return pending

        return await self._uploads.begin(new, replaced)

    async def finalize(self, grant: Grant, key: str, version: str, size: int) -> Entry:
        """Make what was uploaded an entry, and let older ones go where there is no room for all.

        Raises MissingError, InvalidError where it is not of this size, TakenError, QuotaError."""
        gone: set[str] = set()

        def keep(connection: Connection) -> tuple[Upload, Entry]:
            upload = self._uploaded(connection, grant, key, version)
            if upload.sha256 is None or upload.size != size:
                raise InvalidError(f"{upload.size or 0} bytes of the cache {key!r} were committed, not {size}")
            if size > self._limits.cache_bytes:
                raise QuotaError(f"a cache of {size} bytes is over the limit of {self._limits.cache_mib} MiB")
            if self._exact(connection, grant, upload.scope, _fold(key), version):
                raise _taken(key)
            entry = self._insert(connection, upload)
            self._uploads.forget(connection, upload)
            gone.update(self._evict(connection, grant.tenant, entry))
            return upload, entry

        upload, entry = await self._database.transact(keep)
        await self._uploads.discard(upload)
        if gone:
            await self._database.transact(lambda connection: self._blobs.drop_forgotten(connection, gone))
        return entry

    async def find(self, number: int) -> Entry:
        """By its number. Raises MissingError."""
        query = entries.select().where(entries.c.number == number)
        row = await self._database.transact(lambda c: c.execute(query).mappings().one_or_none())
        if row is None:
            raise MissingError(f"there is no cache entry {number}", hint="It had to make room for others.")
        return _entry(row)

    def path(self, entry: Entry) -> Path:
        """Where its content is."""
        return self._blobs.path(entry.sha256)

    def drop_unread(self, connection: Connection) -> None:
        """Forget what nobody has read for too long."""
        oldest = self._clock() - self._limits.cache_days * DAY_S * SECOND
        connection.execute(entries.delete().where(entries.c.used_us < oldest))

    def _match(self, connection: Connection, grant: Grant, scope: str, folded: str, version: str) -> Entry | None:
        if exact := self._exact(connection, grant, scope, folded, version):
            return exact
        query = _within(grant, scope, version).where(_begins(folded)).order_by(entries.c.number.desc()).limit(1)
        row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _entry(row)

    def _exact(self, connection: Connection, grant: Grant, scope: str, folded: str, version: str) -> Entry | None:
        row = (
            connection.execute(_within(grant, scope, version).where(entries.c.folded == folded))
            .mappings()
            .one_or_none()
        )
        return None if row is None else _entry(row)

    def _pending(self, connection: Connection, grant: Grant, key: str, version: str) -> list[Upload]:
        mine = (uploads.c.tenant == grant.tenant, uploads.c.scope == grant.write)
        same = (uploads.c.kind == Kind.CACHE, uploads.c.version == version)
        found = self._uploads.pending(connection, *mine, *same)
        return [upload for upload in found if _fold(upload.name) == _fold(key)]

    def _uploaded(self, connection: Connection, grant: Grant, key: str, version: str) -> Upload:
        found = self._pending(connection, grant, key, version)
        mine = [upload for upload in found if (upload.run, upload.job) == (grant.run, grant.job)]
        if not mine:
            raise MissingError(f"this job has not reserved the cache {key!r}")
        return mine[0]

    def _insert(self, connection: Connection, upload: Upload) -> Entry:
        same = ("tenant", "scope", "version", "sha256", "size")
        values = {name: getattr(upload, name) for name in same} | {"key": upload.name, "folded": _fold(upload.name)}
        now = self._clock()
        result = connection.execute(entries.insert().values(**values, created_us=now, used_us=now))
        number: int = result.inserted_primary_key[0]  # type: ignore[index]  # SQLite always has one
        row = connection.execute(entries.select().where(entries.c.number == number)).mappings().one()
        return _entry(row)

    def _evict(self, connection: Connection, tenant: str, newest: Entry) -> list[str]:
        """Make room: what pull requests wrote goes first, so that they push nothing of a branch out; among equals, what was not used longest. The
        contents of what went."""
        mine = entries.c.tenant == tenant
        pull_first = sa.case((entries.c.scope.startswith(PULL, autoescape=True), 0), else_=1)
        query = sa.select(entries.c.number, entries.c.size, entries.c.sha256).where(mine)
        rows = connection.execute(query.order_by(pull_first, entries.c.used_us, entries.c.number))
        gone = surplus(rows, Limit(MOST_ENTRIES, self._limits.cache_bytes), size=lambda row: row.size)
        for row in gone:
            if row.number == newest.number:
                raise QuotaError("the cache of this repository is full of what its branches keep")
            connection.execute(entries.delete().where(entries.c.number == row.number))
        return [row.sha256 for row in gone]


def _fold(key: str) -> str:
    return key.casefold()


def _within(grant: Grant, scope: str, version: str) -> sa.Select[tuple[object, ...]]:
    return entries.select().where(
        entries.c.tenant == grant.tenant, entries.c.scope == scope, entries.c.version == version
    )


def _begins(folded: str) -> sa.ColumnElement[bool]:
    """By comparison, which an index serves and in which no character of a key has a meaning."""
    return sa.and_(entries.c.folded >= folded, entries.c.folded < folded + "\U0010ffff")


def _taken(key: str) -> TakenError:
    return TakenError(f"the cache {key!r} exists already, or another job is creating it")


def _entry(row: RowMapping) -> Entry:
    return Entry(**row)
