"""Schedules in the store: each start in one transaction with the time after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy.engine import Connection

from firebrick.forge.address import Address
from firebrick.home import Home
from firebrick.node.event import Conclusion
from firebrick.server.build import Dependencies
from firebrick.server.record import BuildRequest, Outcome, State
from firebrick.server.repository import RepositorySettings
from firebrick.server.schedule import Due, Schedule
from firebrick.server.settings import ServeSettings
from firebrick.server.store import Store, add_build
from firebrick.server.timetable import Timetable, read_schedules
from tests.clock import HandClock

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
REQUEST = BuildRequest(repo_url="https://example.org/o/n", event="schedule")


def schedule(cron: str = "0 13 * * *", workflow: str = "w.yml", repository: str = "r") -> Schedule:
    return Schedule(repository=repository, workflow=workflow, cron=cron, zone="UTC", branch="main")


async def known(store: Store, *schedules: Schedule) -> list[Due]:
    await store.schedules.replace("r", schedules, NOW)
    return await store.schedules.all()


async def test_of_those_who_start_one_does(store: Store) -> None:
    (due,) = await known(store, schedule())
    late = NOW + timedelta(days=3)

    def add(connection: Connection) -> None:
        add_build(connection, due.build_id, REQUEST)

    assert sorted(await asyncio.gather(*(store.schedules.start(due, late, add) for _ in range(5)))) == [False] * 4 + [
        True
    ]
    (after,) = await store.schedules.all()
    assert after.at == datetime(2026, 1, 4, 13, tzinfo=UTC)
    assert after.build_id != due.build_id
    assert len(await store.page(9)) == 1


async def test_where_the_build_is_not_kept_the_start_is_not_either(store: Store) -> None:
    (due,) = await known(store, schedule())

    def fail(_: Connection) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        await store.schedules.start(due, NOW + timedelta(days=1), fail)
    assert await store.schedules.all() == [due]


async def test_what_stays_keeps_its_time_and_what_is_new_begins_now(store: Store) -> None:
    (due,) = await known(store, schedule())
    later = NOW + timedelta(days=2)
    await store.schedules.replace("r", [schedule(), schedule("0 14 * * *"), schedule("0 14 * * *")], later)
    assert [each.at for each in await store.schedules.all()] == [due.at, datetime(2026, 1, 3, 14, tzinfo=UTC)]
    await store.schedules.replace("other", [schedule(repository="other")], later)
    await store.schedules.keep_only(["other"])
    assert [each.schedule.repository for each in await store.schedules.all()] == ["other"]
    await store.schedules.keep_only([])
    assert await store.schedules.all() == []


def test_which_a_tree_has(tmp_path: Path) -> None:
    directory = tmp_path / ".github" / "workflows"
    directory.mkdir(parents=True)
    jobs = "jobs: {a: {runs-on: x, steps: [{run: 'true'}]}}\n"
    (directory / "a.yml").write_text(
        "on: {schedule: [{cron: '0 1 * * *', timezone: Asia/Tokyo}, {cron: '5 1 * * 1'}]}\n" + jobs
    )
    (directory / "b.yml").write_text("on: {schedule: [{cron: '99 1 * * *'}]}\n" + jobs)
    (directory / "c.yml").write_text("on: push\n" + jobs)
    found = read_schedules(tmp_path, "r", "main")
    assert [(each.workflow[-5:], each.cron, each.zone) for each in found] == [
        ("a.yml", "0 1 * * *", "Asia/Tokyo"),
        ("a.yml", "5 1 * * 1", "UTC"),
    ]


async def test_attempts_are_numbered_and_one_at_a_time(store: Store) -> None:
    first = await store.add("build_1", REQUEST)
    assert (first.origin, first.run_attempt) == ("build_1", 1)
    assert await store.add("build_1", REQUEST) == first
    assert await store.add_attempt("build_2", REQUEST, "build_1") is None
    await store.finish(first, Outcome(Conclusion.FAILURE))
    both = await asyncio.gather(*(store.add_attempt(f"build_{n}", REQUEST, "build_1") for n in (3, 4)))
    (second,) = [build for build in both if build is not None]
    assert (second.origin, second.run_attempt) == ("build_1", 2)
    assert [build.id for build in await store.attempts("build_1")] == ["build_1", second.id]


async def test_what_waits_goes_on_at_its_place_and_not_when_it_was_cancelled(store: Store) -> None:
    build = await store.add("build_1", REQUEST)
    for state in (State.CLONING, State.STARTING, State.COLLECTING):
        moved = await (store.claim(build.id) if state is State.CLONING else store.advance(build, state))
        assert moved is not None
        build = moved
    await store.gates.ask(build.id, ["Prod", "prod", "test"], NOW)
    assert [(gate.environment, gate.waits) for gate in await store.gates.of(build.id)] == [
        ("Prod", True),
        ("test", True),
    ]
    waiting = await store.park(build, Outcome(Conclusion.WAITING, "it waits"))
    assert waiting is not None
    released = await store.release(waiting)
    assert released is not None
    assert (released.state, released.message, released.parked) == (State.QUEUED, "", 1)
    assert await store.release(waiting) is None
    assert await store.gates.decide(build.id, "nowhere", approved=True, comment="", at=NOW) is None
    gate = await store.gates.decide(build.id, "PROD", approved=True, comment="go", at=NOW)
    assert gate is not None
    assert (gate.approved, gate.comment, gate.decided_at) == (True, "go", NOW)
    assert (await store.gates.decide(build.id, "prod", approved=False, comment="no", at=NOW)) == gate
    await store.gates.ask(build.id, ["test"], NOW)
    assert [(gate.environment, gate.waits) for gate in await store.gates.of(build.id)] == [
        ("Prod", False),
        ("test", True),
    ]


@pytest.fixture
def timetable(store: Store, tmp_path: Path) -> Timetable:
    said = {f"https://example.org/o/{name}": RepositorySettings(schedules=True) for name in ("a", "b")}
    deps = SimpleNamespace(store=store, settings=ServeSettings(repositories=said), clock=HandClock(2026, 1, 2))
    return Timetable(Home(tmp_path), cast("Dependencies", deps))


async def test_what_cannot_be_read_of_one_repository_keeps_none_from_others(
    timetable: Timetable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def look_at(address: Address) -> None:
        seen.append(address.repository)
        raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no text")

    monkeypatch.setattr(timetable, "_look_at", look_at)
    assert await timetable.look() == datetime(2026, 1, 2, 0, 5, tzinfo=UTC)
    assert seen == ["o/a", "o/b"]


async def test_what_cannot_be_started_holds_up_no_other(
    timetable: Timetable, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    async def start(due: Due, address: Address, now: datetime) -> None:
        if address.repository == "o/a":
            raise OSError("the disk is full")
        started.append(address.repository)
        await store.schedules.start(due, now, lambda _: None)

    monkeypatch.setattr(timetable, "_start", start)
    for name in ("a", "b"):
        place = f"example.org/o/{name}"
        await store.schedules.replace(place, [schedule(repository=place)], NOW)
    assert await timetable.start_due() == datetime(2026, 1, 2, 0, 0, 30, tzinfo=UTC)
    assert started == ["o/b"]
    assert [due.at.day for due in await store.schedules.all()] == [1, 2]
