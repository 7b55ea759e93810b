"""Schedules of repositories the settings name: which there are on their default branches, and starting what is due.

A repository is looked at now and then; where its default branch has moved its workflows are read again. Of the times that passed while no server
ran a schedule is started for once, at the next start of one; a schedule that was not known before begins with its next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog

from firebrick.forge.address import Address
from firebrick.forge.clone import clone
from firebrick.forge.errors import ForgeError
from firebrick.forge.resolve import resolve_default
from firebrick.home import Home
from firebrick.server.build import Dependencies
from firebrick.server.errors import PlanError
from firebrick.server.intake import Papers, keep
from firebrick.server.place import Place
from firebrick.server.plan import read_named, workflow_paths
from firebrick.server.record import Build, BuildRequest
from firebrick.server.schedule import Due, Schedule
from firebrick.server.store import add_build
from firebrick.task import shielded
from firebrick.tree import remove as remove_tree
from firebrick.workflow.event.event import text_at
from firebrick.workflow.problem import WorkflowError

_MOST: Final = 200
_RETRY: Final = timedelta(seconds=30)
_LONGEST_PATH: Final = 512  # as the store has room for
_log = structlog.get_logger("firebrick.server")


class Timetable:
    """`news` is set when schedules have changed."""

    def __init__(self, home: Home, deps: Dependencies) -> None:
        self.news = asyncio.Event()
        self._home = home
        self._deps = deps
        self._seen: dict[str, str] = {}

    # --- which there are ---

    async def look(self) -> datetime | None:
        """Look at every repository that has schedules; when to do that again. What cannot be reached keeps those it had."""
        addresses = self._addresses()
        await self._deps.store.schedules.keep_only([address.place for address in addresses])
        for address in addresses:
            try:
                await self._look_at(address)
            except (ForgeError, PlanError, OSError) as error:
                _log.warning("schedules could not be read", repository=address.url, error=str(error))
            except Exception:  # noqa: BLE001 - whatever is wrong with one repository, others have theirs
                _log.exception("schedules could not be read", repository=address.url)
        pause = timedelta(seconds=self._deps.settings.schedule_poll_s)
        return self._deps.clock.now() + pause if addresses else None

    def _addresses(self) -> list[Address]:
        settings = self._deps.settings
        named = [settings.address_of(name) for name, said in settings.repositories.items() if said.schedules]
        return [address for address in named if address.scheme in settings.protocols]

    async def _look_at(self, address: Address) -> None:
        place = Place(self._home, ".timetable")  # no build is called so: whatever a dead server has left there is swept
        try:
            place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            branch, sha = await resolve_default(address, scratch=place.root / "asked")
            if self._seen.get(address.place) == f"{branch} {sha}":
                return
            checkout = await clone(
                address, place.source, branch=f"refs/heads/{branch}", limits=self._deps.settings.clone_limits
            )
            found = await asyncio.to_thread(read_schedules, checkout.path, address.place, branch)
            await self._deps.store.schedules.replace(address.place, found, self._deps.clock.now())
            self._seen[address.place] = f"{branch} {checkout.sha}"
            self.news.set()
        finally:
            await shielded(asyncio.to_thread(remove_tree, place.root))

    # --- what is due ---

    async def start_due(self) -> datetime | None:
        """Start what is due; when the next one is."""
        now = self._deps.clock.now()
        addresses = {address.place: address for address in self._addresses()}
        failed = False
        for due in await self._deps.store.schedules.all():
            if due.at > now:
                break
            if due.schedule.repository in addresses:
                failed |= not await self._tried(due, addresses[due.schedule.repository], now)
        coming = await self._deps.store.schedules.all()
        if failed:
            return now + _RETRY
        return coming[0].at if coming else None

    async def _tried(self, due: Due, address: Address, now: datetime) -> bool:
        """Whether it was started, or needs not be. One that cannot be holds up no other."""
        try:
            await self._start(due, address, now)
        except Exception:  # noqa: BLE001 - a disk or a store that fails now may not fail later
            _log.exception("a schedule could not be started, which is tried again", repository=address.url)
            return False
        return True

    async def _start(self, due: Due, address: Address, now: datetime) -> None:
        async with self._deps.adding:
            await self._add(due, address, now)

    async def _add(self, due: Due, address: Address, now: datetime) -> None:
        place = Place(self._home, due.build_id)
        if await self._deps.store.find(due.build_id) is not None or await self._is_full():
            await self._deps.store.schedules.start(due, now, lambda _: None)
            return
        await asyncio.to_thread(place.remove)
        schedule = due.schedule
        request = BuildRequest(
            repo_url=address.url, branch=f"refs/heads/{schedule.branch}", workflow=schedule.workflow, event="schedule"
        )
        payload = msgspec.json.encode(_payload(schedule, address))

        async def add() -> Build:
            await self._deps.store.schedules.start(
                due, now, lambda connection: add_build(connection, due.build_id, request)
            )
            build = await self._deps.store.find(due.build_id)
            if build is None:
                raise LookupError(f"the schedule {schedule.cron} of {schedule.workflow} is gone")
            return build

        await keep(place, Papers(payload=payload), add)
        _log.info("schedule is due", repository=address.url, workflow=schedule.workflow, build=due.build_id)
        self._deps.news.set()

    async def _is_full(self) -> bool:
        full = await self._deps.is_full()
        if full:
            _log.warning("a schedule is passed over, because too many builds are waiting")
        return full


def read_schedules(tree: Path, repository: str, branch: str) -> list[Schedule]:
    """Those of all workflows of a tree, at most 200; of a file with mistakes, none. Raises PlanError."""
    found: list[Schedule] = []
    for path in workflow_paths(tree):
        if len(path) > _LONGEST_PATH:
            continue
        try:
            entries = read_named(tree, path).on.get("schedule")
        except (PlanError, WorkflowError) as error:
            _log.warning(
                "a workflow has no schedules, because it has mistakes", repository=repository, error=str(error)
            )
            continue
        for entry in entries if isinstance(entries, tuple) else ():
            cron, zone = text_at(entry, "cron"), text_at(entry, "timezone") or "UTC"
            if cron:
                found.append(Schedule(repository=repository, workflow=path, cron=cron, zone=zone, branch=branch))
    return found[:_MOST]


def _payload(schedule: Schedule, address: Address) -> Mapping[str, object]:
    name = address.repository
    repository = {"full_name": name, "name": name.rpartition("/")[2], "default_branch": schedule.branch}
    return {"schedule": schedule.cron, "repository": repository}
