"""Following: every line once, every state, and an end."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import aclosing
from pathlib import Path

import pytest

from firebrick.node.event import Conclusion
from firebrick.server.errors import BuildNotFoundError
from firebrick.server.feed import Feeds
from firebrick.server.follow import Lines, follow
from firebrick.server.log import open_log
from firebrick.server.record import Build, BuildRequest, Outcome, State
from firebrick.server.store import Store

REQUEST = BuildRequest(repo_url="https://example.org/o/n")


async def collect(
    store: Store, feeds: Feeds, log: Path, after: int = 0, closing: asyncio.Event | None = None
) -> tuple[list[int], list[State]]:
    numbers: list[int] = []
    states: list[State] = []
    async for update in follow("build_1", log, after, store=store, feeds=feeds, closing=closing or asyncio.Event()):
        if isinstance(update, Lines):
            numbers += range(update.first, update.first + len(update.lines))
        elif isinstance(update, Build):
            states.append(update.state)
    return numbers, states


async def test_many_followers_see_the_same_and_leave_nothing(store: Store, tmp_path: Path) -> None:
    feeds, log = Feeds(), tmp_path / "log"
    await store.add("build_1", REQUEST)
    followers = [asyncio.create_task(collect(store, feeds, log, after)) for after in range(50)]
    build = await store.claim("build_1")
    assert build is not None
    feeds.publish(build)
    feed = feeds.of("build_1")
    with open_log(log, limit_mib=1, on_flush=feed.notify) as writer:
        for number in range(500):
            writer.say(f"line {number}")
            if number % 7 == 0:
                await asyncio.sleep(0)
    done = await store.finish(build, Outcome(Conclusion.FAILURE))
    assert done is not None
    feeds.publish(done)
    for after, (numbers, states) in enumerate(await asyncio.gather(*followers)):
        assert numbers == list(range(after + 1, 501))
        assert states[-1] is State.FAILED
    del feed, writer, followers
    assert len(feeds._feeds) == 0


async def test_a_build_that_has_ended_is_read_to_its_end(store: Store, tmp_path: Path) -> None:
    build = await store.add("build_1", REQUEST)
    with open_log(tmp_path / "log", limit_mib=1, on_flush=lambda: None) as writer:
        writer.say("one\ntwo")
    await store.finish(build, Outcome(Conclusion.CANCELLED, "cancelled"))
    assert await collect(store, Feeds(), tmp_path / "log", 1) == ([2], [State.FAILED])
    assert await collect(store, Feeds(), tmp_path / "log", 99) == ([], [State.FAILED])


async def test_a_closing_server_lets_followers_go(store: Store, tmp_path: Path) -> None:
    feeds, closing = Feeds(), asyncio.Event()
    await store.add("build_1", REQUEST)
    follower = asyncio.create_task(collect(store, feeds, tmp_path / "log", closing=closing))
    while not feeds._feeds:
        await asyncio.sleep(0)
    closing.set()
    feeds.notify_all()
    assert await asyncio.wait_for(follower, 5) in (([], [State.QUEUED]), ([], []))


async def test_nobody_follows_what_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BuildNotFoundError):
        await collect(store, Feeds(), tmp_path / "log")


async def test_a_large_log_and_many_followers_take_little_memory(store: Store, tmp_path: Path) -> None:
    feeds, log = Feeds(), tmp_path / "log"
    build = await store.add("build_1", REQUEST)
    with open_log(log, limit_mib=64, on_flush=lambda: None) as writer:
        for number in range(40_000):
            writer.say(f"{number:06} {'x' * 400}")
    assert log.stat().st_size > 16 << 20
    await store.finish(build, Outcome(Conclusion.FAILURE))
    tracemalloc.start()

    async def count() -> int:
        seen = 0
        async with aclosing(follow("build_1", log, 0, store=store, feeds=feeds, closing=asyncio.Event())) as updates:
            async for update in updates:
                seen += len(update.lines) if isinstance(update, Lines) else 0
        return seen

    assert set(await asyncio.gather(*(count() for _ in range(10)))) == {40_000}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
