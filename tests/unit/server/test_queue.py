"""However recording goes wrong, a build ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from firebrick.forge.address import Credential
from firebrick.home import Home
from firebrick.node.event import Conclusion
from firebrick.server import queue as queue_module
from firebrick.server.build import Attempt, Dependencies
from firebrick.server.feed import Feeds
from firebrick.server.place import Place
from firebrick.server.plan import make_plan
from firebrick.server.queue import open_queue
from firebrick.server.record import FINAL, Build, BuildRequest, Outcome
from firebrick.server.scheduler import Capacity
from firebrick.server.settings import ServeSettings
from firebrick.server.store import Store
from tests.node_double import DoubleNode

FAILED = Outcome(Conclusion.FAILURE, "why \ud800 it failed", "Do \udfff this.")


@pytest.fixture
def ended(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Outcome], object]:
    """Runs a build whose attempt has this outcome; the build as it is in the end."""
    monkeypatch.setattr(queue_module, "_RETRY_S", 0.001)

    async def run(outcome: Outcome = FAILED) -> Build:
        async def carry_out(_: Attempt) -> Outcome:
            return outcome

        monkeypatch.setattr(Attempt, "carry_out", carry_out)
        home, feeds, over = Home(tmp_path / "home"), Feeds(), asyncio.Event()
        monkeypatch.setattr(feeds, "publish", lambda build: over.set() if build.state in FINAL else None)
        Place(home, "build_1").create(Credential("me", "s3cret"))
        await store.add("build_1", BuildRequest(repo_url="https://example.org/o/n"))
        deps = Dependencies(store, DoubleNode(), make_plan, ServeSettings(home=home.root), feeds.publish)
        async with open_queue(home, deps, feeds, Capacity(builds=4, vcpus=8, memory_mib=8192)):
            await asyncio.wait_for(over.wait(), 10)
        found = await store.find("build_1")
        assert found is not None
        assert not (home.builds / "build_1" / "credential").exists()
        return found

    return run


async def test_a_message_that_cannot_be_encoded_is_recorded_all_the_same(ended) -> None:
    build = await ended()
    assert (build.conclusion, build.message) == (Conclusion.FAILURE, "why \ufffd it failed")


async def test_an_outcome_that_cannot_be_kept_on_disk_is_recorded(ended, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Place, "keep_outcome", full)
    build = await ended(Outcome(Conclusion.FAILURE, "of its own"))
    assert build.message == "of its own"


async def test_a_log_that_cannot_be_opened_fails_the_build(ended, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queue_module, "open_log", full)
    build = await ended()
    assert build.message == "the server could not write the log of the build"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("database is locked"), "of its own"),
        (ValueError("odd"), "the server could not record how the build ended"),
    ],
)
async def test_a_store_that_fails_is_asked_again(
    ended, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    real, left = store.finish, [error] * (3 if isinstance(error, OSError) else 1)

    async def finish(build: Build, outcome: Outcome) -> Build | None:
        if left:
            raise left.pop()
        return await real(build, outcome)

    monkeypatch.setattr(store, "finish", finish)
    build = await ended(Outcome(Conclusion.FAILURE, "of its own"))
    assert build.message == message
    assert left == []
