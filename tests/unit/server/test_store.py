"""One winner for every change of state, and nothing lost between two openings of the database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from firebrick.node.event import CancelCause, Conclusion
from firebrick.server.record import BEFORE, FINAL, UNDER_WAY, Build, BuildRequest, Outcome, State
from firebrick.server.schema import metadata
from firebrick.server.store import _HEAD, Store, open_store, sqlite_url

REQUEST = BuildRequest(
    repo_url="https://example.org/o/n",
    branch="main",
    commit="a" * 40,
    command="make",
    artifacts=("dist/*",),
    vcpus=4,
    timeout_s=1.5,
)


async def claimed(store: Store, build_id: str = "build_1") -> Build:
    await store.add(build_id, REQUEST)
    build = await store.claim(build_id)
    assert build is not None
    return build


async def in_state(store: Store, state: State, build_id: str = "build_1") -> Build:
    """A build that has come to this state on the usual way."""
    build = await store.add(build_id, REQUEST)
    for step in (State.CLONING, State.STARTING, State.RUNNING, State.COLLECTING):
        if build.state is state:
            return build
        moved = await (store.claim(build_id) if step is State.CLONING else store.advance(build, step))
        assert moved is not None
        build = moved
    if state is State.WAITING:
        parked = await store.park(build, Outcome(Conclusion.WAITING, "it waits"))
        assert parked is not None
        return parked
    if state in FINAL:
        outcome = Outcome(Conclusion.SUCCESS if state is State.COMPLETED else Conclusion.FAILURE)
        ended = await store.finish(build, outcome)
        assert ended is not None
        return ended
    return build


async def test_what_is_kept_is_what_was_asked_for(store: Store) -> None:
    build = await store.add("build_1", REQUEST)
    assert (build.request, build.state, build.attempt, build.number) == (REQUEST, State.QUEUED, 0, 1)
    assert await store.find("build_1") == build
    assert await store.find("build_2") is None


async def test_one_claim_wins(store: Store) -> None:
    await store.add("build_1", REQUEST)
    claims = await asyncio.gather(*(store.claim("build_1") for _ in range(16)))
    winners = [build for build in claims if build is not None]
    assert len(winners) == 1
    assert (winners[0].state, winners[0].attempt) == (State.CLONING, 1)
    assert winners[0].started_at is not None


@pytest.mark.parametrize("target", [s for s in State if s in UNDER_WAY - {State.CLONING}])
@pytest.mark.parametrize("source", list(State))
async def test_only_the_ways_of_the_table_are_open(store: Store, source: State, target: State) -> None:
    build = await in_state(store, source)
    moved = await store.advance(build, target)
    assert (moved is not None) == (source in BEFORE[target])
    assert (await store.find(build.id)).state is (target if moved else source)  # type: ignore[union-attr]


@pytest.mark.parametrize("source", list(State))
async def test_what_has_ended_stays_as_it_is(store: Store, source: State) -> None:
    build = await in_state(store, source)
    ended = await store.finish(build, Outcome(Conclusion.FAILURE, "why"))
    assert (ended is None) == (source in FINAL)
    if ended:
        assert (ended.state, ended.message, ended.conclusion) == (State.FAILED, "why", Conclusion.FAILURE)
        assert ended.finished_at is not None
    assert await store.ask_cancel(build.id, CancelCause.USER) is None
    assert await store.claim(build.id) is None
    assert await store.requeue(build, refund=False) is None


async def test_success_is_only_reached_through_collecting(store: Store) -> None:
    build = await in_state(store, State.RUNNING)
    assert await store.finish(build, Outcome(Conclusion.SUCCESS)) is None
    build = await store.advance(build, State.COLLECTING)  # type: ignore[assignment]
    done = await store.finish(build, Outcome(Conclusion.SUCCESS, artifacts_count=3))
    assert done is not None
    assert (done.state, done.artifacts_count) == (State.COMPLETED, 3)


async def test_an_attempt_that_was_taken_over_changes_nothing(store: Store) -> None:
    old = await claimed(store)
    await store.requeue(old, refund=False)
    new = await store.claim(old.id)
    assert new is not None
    assert new.attempt == 2
    assert await store.advance(old, State.STARTING) is None
    assert await store.finish(old, Outcome(Conclusion.FAILURE, "late")) is None
    assert await store.requeue(old, refund=False) is None
    assert await store.find(old.id) == new


@pytest.mark.parametrize(("refund", "attempt"), [(True, 0), (False, 1)])
async def test_requeued_at_the_old_place(store: Store, refund: bool, attempt: int) -> None:
    first = await claimed(store)
    await store.note(first, sha="a" * 40, ref="refs/heads/main", verdicts=[])
    await store.add("build_2", REQUEST)
    back = await store.requeue(first, refund=refund)
    assert back is not None
    assert (back.state, back.attempt, back.started_at) == (State.QUEUED, attempt, None)
    assert (back.sha, back.ref) == ("a" * 40, "refs/heads/main")
    assert [build.id for build in await store.in_states({State.QUEUED})] == ["build_1", "build_2"]


async def test_who_is_to_be_cancelled_does_not_start_and_the_first_cause_counts(store: Store) -> None:
    await store.add("build_1", REQUEST)
    assert (await store.ask_cancel("build_1", CancelCause.USER)).cancel is CancelCause.USER  # type: ignore[union-attr]
    assert (await store.ask_cancel("build_1", CancelCause.SHUTDOWN)).cancel is CancelCause.USER  # type: ignore[union-attr]
    assert await store.claim("build_1") is None
    assert await store.ask_cancel("build_9", CancelCause.USER) is None


async def test_a_cancel_and_a_claim_at_once_have_one_order(store: Store) -> None:
    for number in range(20):
        build_id = f"build_{number}"
        await store.add(build_id, REQUEST)
        asked, claim = await asyncio.gather(store.ask_cancel(build_id, CancelCause.USER), store.claim(build_id))
        assert asked is not None
        # Either the claim came first, and who cancels sees it, or it did not happen.
        assert (claim is not None) == (asked.state is State.CLONING)


async def test_pages_are_the_newest_first(store: Store) -> None:
    for number in range(1, 6):
        await store.add(f"build_{number}", REQUEST)
    await store.claim("build_3")
    assert [b.id for b in await store.page(2)] == ["build_5", "build_4"]
    assert [b.id for b in await store.page(2, before=4)] == ["build_3", "build_2"]
    assert [b.id for b in await store.page(9, state=State.CLONING)] == ["build_3"]
    counts = await store.counts()
    assert (counts.queued, counts.under_way, await store.count(State.QUEUED)) == (4, 1, 4)
    assert await store.ids() == {f"build_{n}" for n in range(1, 6)}


async def test_all_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "builds.db")
    async with open_store(url) as store:
        kept = await claimed(store)
    async with open_store(url) as store:
        assert await store.find("build_1") == kept


async def test_times_do_not_go_back(store: Store) -> None:
    build = await claimed(store)
    later = await store.advance(build, State.STARTING)
    assert later is not None
    assert build.created_at <= build.updated_at <= later.updated_at
    assert later.updated_at.utcoffset() is not None


async def test_the_migrations_make_the_tables_the_code_expects(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "builds.db")
    async with open_store(url):
        pass
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == _HEAD
    engine.dispose()
