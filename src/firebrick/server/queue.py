"""Builds, started in the scheduler's order as capacity allows, each in a task of its own; and what was left by a server that died.

One dispatcher reads the store whenever something has changed: a build came, a build ended. Every start is a claim in the store, so what this
process believes and what is kept cannot drift apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import DataError

from firebrick.home import Home
from firebrick.node.event import CancelCause, Conclusion
from firebrick.server.build import CANCELLED, Attempt, Dependencies, SupersededError
from firebrick.server.feed import Feeds
from firebrick.server.log import open_log, read_tail
from firebrick.server.place import Place
from firebrick.server.record import UNDER_WAY, Build, Outcome, State
from firebrick.server.scheduler import Capacity, Demand, admit
from firebrick.server.settings import ServeSettings
from firebrick.server.stop import Stop
from firebrick.task import alongside

_log = structlog.get_logger("firebrick.server")
_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 30.0
_AT_REST: Final = frozenset({State.QUEUED, State.WAITING})
_LAST_WORDS: Final = 16 << 10
_LOOKED_AT: Final = 1000
"""How many of the oldest waiting builds are put in order; beyond that a queue is long for everybody."""
_UNLOGGED: Final = Outcome(
    Conclusion.FAILURE, "the server could not write the log of the build", "The server's log has the details."
)
_UNRECORDED: Final = Outcome(
    Conclusion.FAILURE, "the server could not record how the build ended", "The server's log has the details."
)


class BuildQueue:
    """The builds under way and the order of those that wait. Made by `open_queue`."""

    def __init__(self, home: Home, deps: Dependencies, feeds: Feeds, capacity: Capacity) -> None:
        self.capacity = capacity
        self._home = home
        self._deps = deps
        self._feeds = feeds
        self._running: dict[str, tuple[Demand, Stop]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = deps.news

    @property
    def running(self) -> int:
        return len(self._running)

    def wake(self) -> None:
        """Look at the queue: something has changed."""
        self._news.set()

    async def cancel(self, build_id: str) -> Build | None:
        """Ask a build to end. One that waits has ended when this returns; one that runs winds up. None when it had ended already."""
        build = await self._deps.store.ask_cancel(build_id, CancelCause.USER)
        if build is None:
            return None
        # The state says which came first: a build that was queued, or waited, when it was asked to end cannot be claimed any more.
        if build.state in _AT_REST:
            await asyncio.to_thread(Place(self._home, build_id).forget_inputs)
            self._say_cancelled(build_id)
            build = await self._deps.store.finish(build, CANCELLED) or build
        elif build_id in self._running:
            self._running[build_id][1].ask(CancelCause.USER)
        self._feeds.publish(build)
        return build

    async def dispatch(self) -> None:
        """Start what may start, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if len(self._running) < self.capacity.builds:
                    await self._start_admitted()
            except Exception:  # noqa: BLE001 - a store that fails now may not fail later
                _log.exception("the queue could not be read")
                await asyncio.sleep(_RETRY_S)
                self.wake()

    async def _start_admitted(self) -> None:
        queued = await self._deps.store.in_states({State.QUEUED}, limit=_LOOKED_AT)
        waiting = {build.number: build for build in queued}
        running = [demand for demand, _ in self._running.values()]
        for demand in admit([_demand(build) for build in waiting.values()], running, self.capacity):
            await self._start(waiting[demand.number].id, demand)

    async def _start(self, build_id: str, demand: Demand) -> None:
        stop = Stop()
        # Known before it is claimed: a cancel that comes in between finds either a queued build or somebody to ask.
        self._running[build_id] = (demand, stop)
        build = await self._deps.store.claim(build_id)
        if build is None:
            del self._running[build_id]
            return
        self._feeds.publish(build)
        task = asyncio.create_task(self._carry_out(build, stop), name=f"build-{build_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, build: Build, stop: Stop) -> None:
        place = Place(self._home, build.id)
        started = time.monotonic()
        _log.info("build started", build=build.id, repository=build.request.repo_url, attempt=build.attempt)
        try:
            outcome = await self._attempt(build, place, stop)
            await self._conclude(build, place, outcome)
            seconds = round(time.monotonic() - started, 3)
            what = "build goes on later" if _goes_on(outcome) else "build ended"
            _log.info(what, build=build.id, conclusion=outcome.conclusion.value, seconds=seconds)
        except SupersededError:
            _log.warning("build was taken over", build=build.id, attempt=build.attempt)
        finally:
            del self._running[build.id]
            self.wake()

    async def _attempt(self, build: Build, place: Place, stop: Stop) -> Outcome:
        """Carry it out with a log. How it ended stands even where the disk does not take the last words."""
        outcome = _UNLOGGED
        try:
            with open_log(
                place.log, limit_mib=self._deps.settings.log_max_mib, on_flush=self._feeds.of(build.id).notify
            ) as log:
                outcome = await Attempt(build, place, self._deps, log, stop).carry_out()
                if not _goes_on(outcome):
                    place.keep_outcome(build.attempt, outcome)
                log.say(outcome.words)
        except SupersededError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the build ends, and the others go on
            _log.exception("the log of the build could not be written", build=build.id)
        return outcome

    async def _conclude(self, build: Build, place: Place, outcome: Outcome) -> None:
        """Record how the attempt ended, after all it held is released."""
        if not _goes_on(outcome):
            await _tidy(build, place.forget_inputs)
        after = await self._record(build, outcome)
        if not _goes_on(outcome):
            await _tidy(build, place.forget_outcome)
        if after is None:
            raise SupersededError(build.id)
        self._feeds.publish(after)
        if after.state is State.WAITING:
            self._deps.gates.set()

    async def _record(self, build: Build, outcome: Outcome) -> Build | None:
        """Tell the store, as often as it takes: a build that was not recorded would be under way for ever. What the store cannot
        represent it is told as a failure."""
        pause = _RETRY_S
        while True:
            try:
                if outcome.again:
                    return await self._deps.store.requeue(build, refund=True)
                if outcome.conclusion is Conclusion.WAITING:
                    return await self._park(build, outcome)
                return await self._deps.store.finish(build, outcome)
            except (ValueError, DataError):
                if outcome is _UNRECORDED:
                    raise
                _log.exception("the store does not take how the build ended", build=build.id)
                outcome = _UNRECORDED
            except Exception:  # noqa: BLE001 - a store that fails now may not fail later
                _log.exception("the end of the build could not be recorded, which is tried again", build=build.id)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_S)

    async def _park(self, build: Build, outcome: Outcome) -> Build | None:
        """Whoever wanted it to end while it came to wait, gets that."""
        parked = await self._deps.store.park(build, outcome)
        if parked is None or parked.cancel is None:
            return parked
        self._say_cancelled(build.id)
        return await self._deps.store.finish(parked, CANCELLED)

    def _say_cancelled(self, build_id: str) -> None:
        """The last words of a build that ends while nobody carries it out."""
        notify = self._feeds.of(build_id).notify
        try:
            with open_log(
                Place(self._home, build_id).log, limit_mib=self._deps.settings.log_max_mib, on_flush=notify
            ) as log:
                log.say(CANCELLED.words)
        except OSError:
            _log.exception("the log of the build could not be written", build=build_id)

    async def close(self, grace: float) -> None:
        """Have everything that runs end and go back to the queue, oldest first; what has not after `grace` seconds is cut off."""
        for _demand, stop in sorted(self._running.values(), key=lambda pair: pair[0].number):
            stop.ask(CancelCause.SHUTDOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _goes_on(outcome: Outcome) -> bool:
    """Whether the same build has another attempt before it, now or later."""
    return outcome.again or outcome.conclusion is Conclusion.WAITING


async def _tidy(build: Build, work: Callable[[], None]) -> None:
    """Remove what an ended build does not need. What stays is swept at the next start of the server; that the build has ended counts more."""
    try:
        await asyncio.to_thread(work)
    except OSError:
        _log.exception("something of an ended build could not be removed", build=build.id)


@asynccontextmanager
async def open_queue(home: Home, deps: Dependencies, feeds: Feeds, capacity: Capacity) -> AsyncIterator[BuildQueue]:
    """Take up what a dead server left, then start builds until the context is left. On exit no build is under way."""
    await recover(home, deps, capacity)
    queue = BuildQueue(home, deps, feeds, capacity)
    queue.wake()
    try:
        async with alongside(queue.dispatch(), name="build-dispatch"):
            yield queue
    finally:
        await queue.close(deps.settings.shutdown_s)


async def recover(home: Home, deps: Dependencies, capacity: Capacity) -> None:
    """Bring order into what a server that died has left: its builds go back to the queue or end, what they held on disk goes."""
    for build in await deps.store.in_states(UNDER_WAY):
        outcome = await _take_up(Place(home, build.id), build, deps.settings)
        if outcome.again:
            await deps.store.requeue(build, refund=False)
        else:
            await deps.store.finish(build, outcome)
        _log.warning("build taken up after a crash", build=build.id, state=build.state.value, again=outcome.again)
    for build in await deps.store.in_states(_AT_REST):
        if build.cancel is not None:
            await deps.store.finish(build, CANCELLED)
        elif not capacity.admits(_demand(build)):
            # Its settings were others when it took the build; now it would hold back all behind it for ever.
            await deps.store.finish(
                build, Outcome(Conclusion.FAILURE, "the build needs more than the server may use now")
            )
    await _sweep(home, deps)


async def _take_up(place: Place, build: Build, settings: ServeSettings) -> Outcome:
    """What becomes of an attempt whose server died: if it had ended, that; else it is undone, and said so in the log."""
    outcome = place.kept_outcome(build.attempt)
    if outcome is None:
        await asyncio.to_thread(place.clear_attempt)
    with open_log(place.log, limit_mib=settings.log_max_mib, on_flush=lambda: None) as log:
        if outcome is None:
            outcome = _after_crash(build, settings.max_attempts)
            what = outcome.message or "it will be run again"
            log.say(f"==> The server ended while this build was in {build.state.value}; {what}")
        elif not read_tail(place.log, _LAST_WORDS).text.endswith(f"{outcome.words}\n"):
            log.say(outcome.words)
    return outcome


def _after_crash(build: Build, max_attempts: int) -> Outcome:
    if build.cancel is not None:
        return CANCELLED
    tries = build.attempt - build.parked
    if tries >= max_attempts:
        message = f"the server ended {tries} times while this build ran; it is not tried again"
        return Outcome(Conclusion.FAILURE, message)
    return Outcome(Conclusion.CANCELLED, again=True)


async def _sweep(home: Home, deps: Dependencies) -> None:
    """Remove directories no build owns, and from those of ended builds what should not outlive them."""
    home.builds.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = await deps.store.ids()
    waiting = {build.id for build in await deps.store.in_states(_AT_REST)}

    def sweep() -> None:
        for directory in home.builds.iterdir():
            place = Place(home, directory.name)
            if directory.name not in known:
                place.remove()
            else:
                place.clear_source()
                place.forget_outcome()
                if directory.name not in waiting:
                    place.forget_inputs()

    await asyncio.to_thread(sweep)


def _demand(build: Build) -> Demand:
    request = build.request
    waited = (datetime.now(UTC) - build.created_at).total_seconds()
    return Demand(build.number, request.repo_url, request.vcpus, request.memory_mib, waited)
