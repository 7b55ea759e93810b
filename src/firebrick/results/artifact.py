"""Artifacts: named contents of a run, kept for some days."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from firebrick.database import Database
from firebrick.results.blob import BlobStore
from firebrick.results.clock import SECOND, Clock
from firebrick.results.errors import InvalidError, MissingError, QuotaError, ResultsError, TakenError
from firebrick.results.limits import DAY_S, MOST_ARTIFACTS, ResultsLimits
from firebrick.results.name import check_artifact_name, check_mime
from firebrick.results.record import ZIP, Artifact, Offer, Watcher, Watchers
from firebrick.results.schema import artifacts, uploads
from firebrick.results.token import Grant
from firebrick.results.upload import Kind, NewUpload, Upload, Uploads

_ZIPS: Final = ("zip", ZIP)
_TAKEN_OVER: Final = ("tenant", "run", "job", "name", "mime", "sha256", "size", "expires_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a client says of the artifact it has uploaded. `sha256` is None where it says nothing."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class _Taken:
    """The versions of a run's offers that were taken; each is taken once."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    versions: dict[str, int] = field(default_factory=dict)


class Artifacts:
    """The artifacts of all runs. A grant sees those of its own run; those of other runs of its repository, `of_run` and `find`."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        uploads: Uploads,
        limits: ResultsLimits,
        clock: Clock,
        watchers: Watchers,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._limits = limits
        self._clock = clock
        self._watchers = watchers
        self._taken: WeakKeyDictionary[Watcher, _Taken] = WeakKeyDictionary()

    async def create(self, grant: Grant, name: str, *, mime: str = "", expires_us: int | None = None) -> int:
        """Begin the upload of an artifact, and return its number. An upload the same job has begun and not finished is forgotten.

        Raises InvalidError, TakenError where the run has or is about to get one of that name, QuotaError."""
        new = NewUpload(
            tenant=grant.tenant,
            run=grant.run,
            job=grant.job,
            kind=Kind.ARTIFACT,
            name=check_artifact_name(name),
            mime=ZIP if mime in ("", *_ZIPS) else check_mime(mime),
            expires_us=self._expiry(expires_us),
        )
        await self._take_offers(grant)

        def replaced(connection: Connection) -> list[Upload]:
            self._check_free(connection, grant, new.name)
            pending = self._pending(connection, grant, new.name)
            if any(upload.job != grant.job for upload in pending):
                raise _taken(new.name)
            return pending

        return await self._uploads.begin(new, replaced)

    async def finalize(self, grant: Grant, finished: Finished) -> Artifact:
        """Make what was uploaded an artifact. Raises InvalidError where it is not what the client says, MissingError, TakenError, QuotaError."""

        def keep(connection: Connection) -> tuple[Upload, Artifact]:
            upload = self._uploaded(connection, grant, finished)
            self._check_free(connection, grant, upload.name)
            self._check_quota(connection, grant, upload.size or 0)
            values = {name: getattr(upload, name) for name in _TAKEN_OVER}
            result = connection.execute(artifacts.insert().values(**values, created_us=self._clock()))
            self._uploads.forget(connection, upload)
            number: int = result.inserted_primary_key[0]  # type: ignore[index]  # SQLite always has one
            return upload, _one(connection, artifacts.c.number == number)

        upload, artifact = await self._database.transact(keep)
        await self._uploads.discard(upload)
        if watcher := self._watchers.find(grant.tenant, grant.run):
            try:
                await watcher.keep(artifact, self.path(artifact))
            except ResultsError:
                await self._drop(artifact)
                raise
        return artifact

    async def find_all(self, grant: Grant, *, name: str | None = None, number: int | None = None) -> list[Artifact]:
        """Those of the grant's run, newest first: all, or those of this name or number."""
        await self._take_offers(grant)
        wanted = [artifacts.c.name == name] if name is not None else []
        wanted += [artifacts.c.number == number] if number is not None else []
        return await self.of_run(grant.tenant, grant.run, *wanted)

    async def of_run(self, tenant: str, run: str, *conditions: sa.ColumnElement[bool]) -> list[Artifact]:
        """Those of any run, newest first."""
        query = self._alive().where(artifacts.c.tenant == tenant, artifacts.c.run == run, *conditions)
        query = query.order_by(artifacts.c.number.desc())
        return await self._database.transact(lambda c: [_artifact(row) for row in c.execute(query).mappings()])

    async def get(self, grant: Grant, name: str) -> Artifact:
        """The one of that name of the grant's run. Raises MissingError."""
        found = await self.find_all(grant, name=name)
        if not found:
            raise MissingError(f"the run has no artifact with the name {name!r}")
        return found[0]

    async def find(self, number: int, *, tenant: str | None = None) -> Artifact:
        """By its number, of any run. Raises MissingError."""
        query = self._alive().where(artifacts.c.number == number)
        if tenant is not None:
            query = query.where(artifacts.c.tenant == tenant)
        row = await self._database.transact(lambda c: c.execute(query).mappings().one_or_none())
        if row is None:
            raise MissingError(f"there is no artifact {number}", hint="It may have expired.")
        return _artifact(row)

    async def delete(self, grant: Grant, name: str) -> Artifact:
        """Forget the one of that name of the grant's run. Raises MissingError."""
        artifact = await self.get(grant, name)
        if watcher := self._watchers.find(grant.tenant, grant.run):
            await watcher.drop(artifact)
        await self._drop(artifact)
        return artifact

    def path(self, artifact: Artifact) -> Path:
        """Where its content is."""
        return self._blobs.path(artifact.sha256)

    def drop_expired(self, connection: Connection) -> None:
        connection.execute(artifacts.delete().where(artifacts.c.expires_us < self._clock()))

    async def _take_offers(self, grant: Grant) -> None:
        """Make artifacts of what the run keeps elsewhere, each once."""
        watcher = self._watchers.find(grant.tenant, grant.run)
        if watcher is None:
            return
        taken = self._taken.setdefault(watcher, _Taken())
        async with taken.turn:
            for offer in watcher.offers():
                if taken.versions.get(offer.name) != offer.version:
                    await self._take(replace(grant, job=offer.job), offer)
                    taken.versions[offer.name] = offer.version

    async def _take(self, grant: Grant, offer: Offer) -> None:
        whole = await self._uploads.make(offer.write)
        values: dict[str, Any] = {
            "tenant": grant.tenant,
            "run": grant.run,
            "job": grant.job,
            "name": offer.name,
            "mime": ZIP,
        }
        values |= {"sha256": whole.sha256, "size": whole.size, "expires_us": self._expiry(None)}

        def keep(connection: Connection) -> None:
            named = (artifacts.c.tenant == grant.tenant, artifacts.c.run == grant.run, artifacts.c.name == offer.name)
            connection.execute(artifacts.delete().where(*named))
            self._check_quota(connection, grant, whole.size)
            self._blobs.keep(connection, whole.path, whole.sha256, whole.size)
            connection.execute(artifacts.insert().values(**values, created_us=self._clock()))

        try:
            await self._database.transact(keep)
        finally:
            whole.path.unlink(missing_ok=True)

    async def _drop(self, artifact: Artifact) -> None:
        statement = artifacts.delete().where(artifacts.c.number == artifact.number)
        await self._database.transact(lambda connection: connection.execute(statement))
        await self._database.transact(lambda connection: self._blobs.drop_forgotten(connection, [artifact.sha256]))

    def _alive(self) -> sa.Select[tuple[object, ...]]:
        return artifacts.select().where(artifacts.c.expires_us >= self._clock())

    def _expiry(self, wanted: int | None) -> int:
        most = self._clock() + self._limits.retention_days * DAY_S * SECOND
        if wanted is None:
            return most
        if wanted <= self._clock():
            raise InvalidError("`expires_at` is in the past")
        return min(wanted, most)

    def _pending(self, connection: Connection, grant: Grant, name: str) -> list[Upload]:
        mine = (uploads.c.tenant == grant.tenant, uploads.c.run == grant.run)
        return self._uploads.pending(connection, *mine, uploads.c.kind == Kind.ARTIFACT, uploads.c.name == name)

    def _uploaded(self, connection: Connection, grant: Grant, finished: Finished) -> Upload:
        mine = [each for each in self._pending(connection, grant, finished.name) if each.job == grant.job]
        if not mine:
            raise MissingError(f"no upload of an artifact {finished.name!r} was begun by this job")
        upload = mine[0]
        if upload.sha256 is None:
            raise InvalidError(f"the upload of {finished.name!r} is not finished: its blocks were not committed")
        if finished.size != upload.size:
            raise InvalidError(f"the size of {finished.name!r} is {upload.size} bytes, not {finished.size}")
        if finished.sha256 not in (None, upload.sha256):
            raise InvalidError(f"the SHA-256 of {finished.name!r} is {upload.sha256}, not {finished.sha256}")
        return upload

    def _check_free(self, connection: Connection, grant: Grant, name: str) -> None:
        of_run = sa.and_(artifacts.c.tenant == grant.tenant, artifacts.c.run == grant.run)
        names = set(
            connection.scalars(sa.select(artifacts.c.name).where(of_run, artifacts.c.expires_us >= self._clock()))
        )
        if name in names:
            raise _taken(name)
        if len(names) >= MOST_ARTIFACTS:
            raise QuotaError(f"this run has {MOST_ARTIFACTS} artifacts")
        connection.execute(artifacts.delete().where(of_run, artifacts.c.name == name))  # one that has expired

    def _check_quota(self, connection: Connection, grant: Grant, size: int) -> None:
        total = sa.func.coalesce(sa.func.sum(artifacts.c.size), 0)
        used = connection.execute(sa.select(total).where(artifacts.c.tenant == grant.tenant)).scalar_one()
        if used + size > self._limits.artifact_bytes:
            raise QuotaError(
                f"the artifacts of {grant.repository} are more than {self._limits.artifacts_mib} MiB",
                hint="Keep them for less long, or raise `artifacts_mib` in the [node.results] table of config.toml.",
            )


def _taken(name: str) -> TakenError:
    return TakenError(f"an artifact with the name {name!r} already exists on the workflow run")


def _one(connection: Connection, condition: sa.ColumnElement[bool]) -> Artifact:
    return _artifact(connection.execute(artifacts.select().where(condition)).mappings().one())


def _artifact(row: RowMapping) -> Artifact:
    return Artifact(**row)
