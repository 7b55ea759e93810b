"""Schedules of workflows, kept: which repository has which, and when each is due next.

A start by the clock is one transaction: the build is kept, under an id that is made of the schedule and the time it was due, and the time after is
noted. So a server that dies, before or after, neither loses a start nor makes one twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from firebrick.database import Database
from firebrick.server.clock import from_us, to_us
from firebrick.server.record import derived_id
from firebrick.server.schema import schedules
from firebrick.workflow.event.cron import parse_cron


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule of one workflow on the default branch of a repository, which is known by its place (`host/owner/name`)."""

    repository: str
    workflow: str
    cron: str
    zone: str
    branch: str

    def after(self, moment: datetime) -> datetime | None:
        """When it is due next. None where it never is. Raises CronError."""
        return parse_cron(self.cron, self.zone).next_after(moment)


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule and when it is due next, or was."""

    schedule: Schedule
    at: datetime

    @property
    def build_id(self) -> str:
        """The same whenever it is asked for."""
        of = self.schedule
        return derived_id("schedule", of.repository, of.workflow, of.cron, of.zone, str(to_us(self.at)))


class ScheduleStore:
    """The schedules of all repositories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace(self, repository: str, found: Sequence[Schedule], now: datetime) -> None:
        """What a repository has now. One that it had before keeps its time; a new one is due from now on."""

        def change(connection: Connection) -> None:
            known = {_key(due.schedule): due for due in _all(connection) if due.schedule.repository == repository}
            connection.execute(schedules.delete().where(schedules.c.repository == repository))
            for schedule in {_key(each): each for each in found}.values():
                before = known.get(_key(schedule))
                at = before.at if before is not None else schedule.after(now)
                if at is not None:
                    connection.execute(schedules.insert().values(_values(schedule) | {"due_us": to_us(at)}))

        await self._database.transact(change)

    async def keep_only(self, repositories: Sequence[str]) -> None:
        """Forget those of all other repositories."""
        statement = schedules.delete().where(schedules.c.repository.not_in(list(repositories)))
        await self._database.transact(lambda connection: connection.execute(statement))

    async def all(self) -> list[Due]:
        """Every schedule, the next one first."""
        return await self._database.transact(_all)

    async def start(self, due: Due, now: datetime, add: Callable[[Connection], object]) -> bool:
        """In one transaction do `add` and note when the schedule is due after `now`: times that passed meanwhile are not made up for one by
        one. False, and nothing is done, where somebody else was faster."""
        following = due.schedule.after(now)
        match = [schedules.c[name] == value for name, value in _values(due.schedule).items() if name != "branch"]
        match.append(schedules.c.due_us == to_us(due.at))

        def change(connection: Connection) -> bool:
            statement: Any = schedules.delete().where(*match)
            if following is not None:
                statement = schedules.update().where(*match).values(due_us=to_us(following))
            if connection.execute(statement).rowcount != 1:
                return False
            add(connection)
            return True

        return await self._database.transact(change)


def _all(connection: Connection) -> list[Due]:
    query = sa.select(schedules).order_by(schedules.c.due_us, schedules.c.repository, schedules.c.workflow)
    return [_due(row) for row in connection.execute(query).mappings()]


def _due(row: RowMapping) -> Due:
    names = ("repository", "workflow", "cron", "zone", "branch")
    return Due(Schedule(**{name: row[name] for name in names}), from_us(row["due_us"]))


def _key(schedule: Schedule) -> tuple[str, ...]:
    return schedule.repository, schedule.workflow, schedule.cron, schedule.zone


def _values(schedule: Schedule) -> dict[str, str]:
    return {
        "repository": schedule.repository,
        "workflow": schedule.workflow,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "branch": schedule.branch,
    }
