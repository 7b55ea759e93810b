"""What a dead server left is taken up: the ends that were reached, the attempts that were not, and what lies about."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.forge.address import Credential
from firebrick.home import Home
from firebrick.node.event import CancelCause, Conclusion
from firebrick.server.build import Dependencies
from firebrick.server.log import open_log, read_tail
from firebrick.server.place import Place
from firebrick.server.plan import make_plan
from firebrick.server.queue import recover
from firebrick.server.record import Build, BuildRequest, Outcome, State
from firebrick.server.scheduler import Capacity
from firebrick.server.settings import ServeSettings
from firebrick.server.store import Store
from tests.node_double import DoubleNode

ROOM = Capacity(builds=4, vcpus=8, memory_mib=8192)
DONE = Outcome(Conclusion.SUCCESS, artifacts_count=1)


@pytest.fixture
def deps(store: Store, tmp_path: Path) -> Dependencies:
    return Dependencies(store, DoubleNode(), make_plan, ServeSettings(home=tmp_path), lambda _: None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


async def under_way(store: Store, home: Home, *states: State, **request: int) -> tuple[Build, Place]:
    """A build that has come so far, with what it would have on disk."""
    place = Place(home, "build_1")
    place.create(Credential("me", "s3cret"))
    build = await store.add("build_1", BuildRequest(repo_url="https://example.org/o/n", **request))  # type: ignore[arg-type]
    for state in states:
        moved = await (store.claim(build.id) if state is State.CLONING else store.advance(build, state))
        assert moved is not None
        build = moved
    (place.source / "inner").mkdir(parents=True)
    place.artifacts.mkdir()
    (place.artifacts / "a").write_text("x")
    place.manifest.write_text("{}")
    with open_log(place.log, limit_mib=1, on_flush=lambda: None) as log:
        log.say("so far")
    return build, place


FAR = (State.CLONING, State.STARTING, State.RUNNING, State.COLLECTING)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_an_attempt_in_the_middle_is_undone_and_queued(deps: Dependencies, home: Home, count: int) -> None:
    build, place = await under_way(deps.store, home, *FAR[:count])
    await recover(home, deps, ROOM)
    found = await deps.store.find(build.id)
    assert found is not None
    assert (found.state, found.attempt) == (State.QUEUED, 1)
    assert sorted(path.name for path in place.root.iterdir()) == ["credential", "log.jsonl"]
    assert "will be run again" in read_tail(place.log, 1000).text


async def test_an_attempt_that_had_ended_is_not_done_again(deps: Dependencies, home: Home) -> None:
    build, place = await under_way(deps.store, home, *FAR)
    place.keep_outcome(build.attempt, DONE)
    await recover(home, deps, ROOM)
    found = await deps.store.find(build.id)
    assert found is not None
    assert (found.state, found.attempt, found.artifacts_count) == (State.COMPLETED, 1, 1)
    assert sorted(path.name for path in place.root.iterdir()) == ["artifacts", "log.jsonl", "manifest.json"]
    assert read_tail(place.log, 1000).text == "so far\n==> Completed, 1 artifact\n"


async def test_its_last_words_are_said_once(deps: Dependencies, home: Home) -> None:
    build, place = await under_way(deps.store, home, *FAR)
    place.keep_outcome(build.attempt, DONE)
    with open_log(place.log, limit_mib=1, on_flush=lambda: None) as log:
        log.say(DONE.words)
    await recover(home, deps, ROOM)
    assert read_tail(place.log, 1000).text == "so far\n==> Completed, 1 artifact\n"


async def test_the_end_of_another_attempt_does_not_count(deps: Dependencies, home: Home) -> None:
    build, place = await under_way(deps.store, home, *FAR)
    place.keep_outcome(build.attempt - 1, DONE)
    await recover(home, deps, ROOM)
    assert (await deps.store.find(build.id)).state is State.QUEUED  # type: ignore[union-attr]


async def test_who_was_to_be_cancelled_is(deps: Dependencies, home: Home) -> None:
    build, _ = await under_way(deps.store, home, State.CLONING)
    await deps.store.ask_cancel(build.id, CancelCause.USER)
    await recover(home, deps, ROOM)
    found = await deps.store.find(build.id)
    assert found is not None
    assert (found.state, found.message) == (State.FAILED, "cancelled")


async def test_a_waiting_build_that_does_not_fit_any_more_ends(deps: Dependencies, home: Home) -> None:
    build, place = await under_way(deps.store, home, vcpus=16)
    await recover(home, deps, ROOM)
    found = await deps.store.find(build.id)
    assert found is not None
    assert (found.state, found.conclusion) == (State.FAILED, Conclusion.FAILURE)
    assert not (place.root / "credential").exists()


async def test_directories_without_a_build_go(deps: Dependencies, home: Home) -> None:
    Place(home, "build_lost").create(Credential("me", "s3cret"))
    await recover(home, deps, ROOM)
    assert list(home.builds.iterdir()) == []


async def test_taking_up_twice_is_the_same_as_once(deps: Dependencies, home: Home) -> None:
    build, _ = await under_way(deps.store, home, *FAR)
    await recover(home, deps, ROOM)
    once = await deps.store.find(build.id)
    await recover(home, deps, ROOM)
    assert await deps.store.find(build.id) == once
