"""Builds in a database: SQLite beside the home, or any other SQLAlchemy speaks, by its URL.

Every change of state is one compare-and-set in one transaction: it says from which states and in which attempt it is meant, and answers with the
build as it is after, or None when somebody else was faster. So there is one winner, whoever tries, and a process that died and was replaced
cannot change what its successor has taken over: the attempt is the fence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from firebrick.database import Database, open_database, sqlite_url
from firebrick.node.event import CancelCause, Conclusion
from firebrick.server.clock import from_us, now_us
from firebrick.server.gate import GateStore
from firebrick.server.record import (
    BEFORE,
    FINAL,
    UNDER_WAY,
    Build,
    BuildRequest,
    Counts,
    Outcome,
    Repeat,
    State,
    Verdict,
)
from firebrick.server.schedule import ScheduleStore
from firebrick.server.schema import builds

_HEAD: Final = "0002"
_COLUMNS: Final = ("repo_url", "branch", "commit")

__all__ = ["Store", "open_store", "sqlite_url"]


class Store:
    """Builds, kept. Made by `open_store`. Any number of calls may be under way at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.gates = GateStore(database)
        self.schedules = ScheduleStore(database)

    async def add(self, build_id: str, request: BuildRequest) -> Build:
        """Keep a new build, queued behind all others."""
        return await self._database.transact(lambda connection: add_build(connection, build_id, request))

    async def add_attempt(self, build_id: str, request: BuildRequest, origin: str) -> Build | None:
        """Keep another attempt at the build `origin`; None where one has not ended yet."""
        others = sa.select(builds.c.state, builds.c.run_attempt).where(builds.c.origin == origin)

        def insert(connection: Connection) -> Build | None:
            known = connection.execute(others).all()
            if any(State(state) not in FINAL for state, _ in known):
                return None
            following = max(number for _, number in known) + 1
            return add_build(connection, build_id, request, origin=origin, run_attempt=following)

        return await self._database.transact(insert)

    async def attempts(self, origin: str) -> list[Build]:
        """All attempts at a build, the first one first."""
        query = builds.select().where(builds.c.origin == origin).order_by(builds.c.run_attempt)
        return await self._database.transact(lambda connection: _all(connection, query))

    async def find(self, build_id: str) -> Build | None:
        return await self._database.transact(lambda connection: _find(connection, build_id))

    async def page(self, limit: int, *, before: int | None = None, state: State | None = None) -> list[Build]:
        """The newest builds first, at most `limit`; those with a number below `before`, and in `state`, if given."""
        query = builds.select().order_by(builds.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(builds.c.number < before)
        if state is not None:
            query = query.where(builds.c.state == state)
        return await self._database.transact(lambda connection: _all(connection, query))

    async def in_states(self, states: Collection[State], *, limit: int | None = None) -> list[Build]:
        """The builds in one of these states, oldest first: all, or at most `limit`."""
        query = builds.select().where(builds.c.state.in_(list(states))).order_by(builds.c.number).limit(limit)
        return await self._database.transact(lambda connection: _all(connection, query))

    async def counts(self) -> Counts:
        query = sa.select(builds.c.state, sa.func.count()).group_by(builds.c.state)
        rows = await self._database.transact(lambda connection: list(connection.execute(query)))
        return Counts({State(state): count for state, count in rows})

    async def count(self, state: State) -> int:
        """How many builds are in this state."""
        query = sa.select(sa.func.count()).where(builds.c.state == state)
        return await self._database.transact(lambda connection: connection.execute(query).scalar_one())

    async def ids(self) -> set[str]:
        """The id of every build."""
        return set(await self._database.transact(lambda connection: list(connection.scalars(sa.select(builds.c.id)))))

    async def claim(self, build_id: str) -> Build | None:
        """Start a queued build: `cloning_repo`, one attempt more. None when it is not queued any more, or is to be cancelled."""
        values = {"state": State.CLONING, "attempt": builds.c.attempt + 1, "started_us": now_us()}
        return await self._change(build_id, values, builds.c.state == State.QUEUED, builds.c.cancel.is_(None))

    async def advance(self, build: Build, state: State, **values: Any) -> Build | None:
        """Move an attempt on to the next state. None when this attempt is not the current one or the move is not possible."""
        return await self._change(build.id, {"state": state, **values}, *_fence(build, BEFORE[state]))

    async def note(self, build: Build, *, sha: str, ref: str, verdicts: Sequence[Verdict]) -> Build | None:
        """Keep what was cloned, and what its event starts. None when this attempt is not the current one."""
        values = {"sha": sha, "ref": ref, "verdicts": [asdict(verdict) for verdict in verdicts] or None}
        return await self._change(build.id, values, *_fence(build, UNDER_WAY))

    async def park(self, build: Build, outcome: Outcome) -> Build | None:
        """Have a build wait: it goes on with another attempt, which is not held against it."""
        values: dict[str, Any] = {"state": State.WAITING, "message": outcome.message, "parked": builds.c.parked + 1}
        values |= {"artifacts_count": outcome.artifacts_count}
        return await self._change(build.id, values, *_fence(build, BEFORE[State.WAITING]))

    async def release(self, build: Build) -> Build | None:
        """Have a build that waits go on when its turn comes, at its old place. None when it does not wait any more."""
        values = {"state": State.QUEUED, "started_us": None, "message": ""}
        return await self._change(build.id, values, builds.c.state == State.WAITING, builds.c.cancel.is_(None))

    async def finish(self, build: Build, outcome: Outcome) -> Build | None:
        """End an attempt, or a build that never started, for good."""
        good = outcome.conclusion in (Conclusion.SUCCESS, Conclusion.SKIPPED)
        state = State.COMPLETED if good else State.FAILED
        values: dict[str, Any] = {"state": state, "message": outcome.message, "conclusion": outcome.conclusion}
        values |= {"artifacts_count": outcome.artifacts_count, "finished_us": now_us()}
        return await self._change(build.id, values, *_fence(build, BEFORE[state]))

    async def requeue(self, build: Build, *, refund: bool) -> Build | None:
        """Put an interrupted attempt back into the queue, at its old place and with the commit it had. With `refund` the attempt does not count."""
        values: dict[str, Any] = {"state": State.QUEUED, "started_us": None}
        if refund:
            values["attempt"] = builds.c.attempt - 1
        return await self._change(build.id, values, *_fence(build, UNDER_WAY))

    async def ask_cancel(self, build_id: str, cause: CancelCause) -> Build | None:
        """Note that a build is to end. The first cause counts. None when it has ended, or there is no such build."""
        values = {"cancel": sa.func.coalesce(builds.c.cancel, cause.value)}
        return await self._change(build_id, values, builds.c.state.not_in(list(FINAL)))

    async def _change(self, build_id: str, values: dict[str, Any], *conditions: sa.ColumnElement[bool]) -> Build | None:
        # Time may stand still or go back; `updated_at` does not.
        newer = sa.case((builds.c.updated_us < now_us(), now_us()), else_=builds.c.updated_us)
        statement = builds.update().where(builds.c.id == build_id, *conditions).values(updated_us=newer, **values)

        def update(connection: Connection) -> Build | None:
            return _one(connection, build_id) if connection.execute(statement).rowcount == 1 else None

        return await self._database.transact(update)


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """Connect to the database, bring it to the newest form, and let go of it at the end."""
    async with open_database(url, scripts="firebrick.server:migrations", head=_HEAD) as database:
        yield Store(database)


def add_build(
    connection: Connection, build_id: str, request: BuildRequest, *, origin: str = "", run_attempt: int = 1
) -> Build:
    """Keep a new build in a transaction that somebody else has begun; the one that is there where it was kept before."""
    options = {k: v for k, v in asdict(request).items() if k not in _COLUMNS}
    now = now_us()
    values: dict[str, Any] = {name: getattr(request, name) for name in _COLUMNS}
    values |= {"id": build_id, "state": State.QUEUED, "attempt": 0, "options": options, "message": "", "sha": ""}
    values |= {"artifacts_count": 0, "created_us": now, "updated_us": now}
    values |= {"origin": origin or build_id, "run_attempt": run_attempt}
    known = _find(connection, build_id)
    if known is not None:
        return known
    connection.execute(builds.insert().values(values))
    return _one(connection, build_id)


def _fence(build: Build, states: Collection[State]) -> tuple[sa.ColumnElement[bool], ...]:
    return builds.c.attempt == build.attempt, builds.c.state.in_(list(states))


def _find(connection: Connection, build_id: str) -> Build | None:
    row = connection.execute(builds.select().where(builds.c.id == build_id)).mappings().one_or_none()
    return None if row is None else _build(row)


def _one(connection: Connection, build_id: str) -> Build:
    return _build(connection.execute(builds.select().where(builds.c.id == build_id)).mappings().one())


def _all(connection: Connection, query: sa.Select[Any]) -> list[Build]:
    return [_build(row) for row in connection.execute(query).mappings()]


def _build(row: RowMapping) -> Build:
    options = dict(row["options"])
    options["artifacts"] = tuple(options["artifacts"])
    if options.get("repeat") is not None:
        options["repeat"] = Repeat(**options["repeat"])
    return Build(
        id=row["id"],
        number=row["number"],
        request=BuildRequest(**{name: row[name] for name in _COLUMNS}, **options),
        state=State(row["state"]),
        attempt=row["attempt"],
        message=row["message"],
        conclusion=None if row["conclusion"] is None else Conclusion(row["conclusion"]),
        cancel=None if row["cancel"] is None else CancelCause(row["cancel"]),
        sha=row["sha"],
        artifacts_count=row["artifacts_count"],
        created_at=from_us(row["created_us"]),
        updated_at=from_us(row["updated_us"]),
        started_at=None if row["started_us"] is None else from_us(row["started_us"]),
        finished_at=None if row["finished_us"] is None else from_us(row["finished_us"]),
        parked=row["parked"],
        origin=row["origin"],
        run_attempt=row["run_attempt"],
        ref=row["ref"],
        verdicts=tuple(Verdict(**verdict) for verdict in row["verdicts"] or ()),
    )
