"""What the server does by the clock, each in a task of its own: let builds go on that waited, start schedules, look for schedules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

from firebrick.home import Home
from firebrick.server.build import Dependencies
from firebrick.server.clock import Clock
from firebrick.server.gatekeeper import Gatekeeper
from firebrick.server.timetable import Timetable
from firebrick.task import end_tasks

_RETRY: Final = timedelta(seconds=30)
_log = structlog.get_logger("firebrick.server")


async def by_the_clock(work: Callable[[], Awaitable[datetime | None]], clock: Clock, news: asyncio.Event) -> None:
    """Do `work` now, whenever the time has come that it named, and when there are news; for ever."""
    while True:
        news.clear()
        try:
            until = await work()
        except Exception:  # noqa: BLE001 - a store that fails now may not fail later
            _log.exception("what is done by the clock could not be done, which is tried again")
            until = clock.now() + _RETRY
        await _until(until, clock, news)


async def _until(until: datetime | None, clock: Clock, news: asyncio.Event) -> None:
    while not news.is_set() and (until is None or clock.now() < until):
        await clock.wait(until, news)


@asynccontextmanager
async def open_clockwork(home: Home, deps: Dependencies) -> AsyncIterator[None]:
    """Going on until the context is left. Whatever dies in the middle is done by the next server, once."""
    timetable, gatekeeper = Timetable(home, deps), Gatekeeper(deps)
    work = (
        ("gates", gatekeeper.admit, deps.gates),
        ("schedules", timetable.start_due, timetable.news),
        ("timetable", timetable.look, asyncio.Event()),
    )
    tasks = [
        asyncio.create_task(by_the_clock(each, deps.clock, news), name=f"clock-{name}") for name, each, news in work
    ]
    try:
        yield
    finally:
        await end_tasks(*tasks)
