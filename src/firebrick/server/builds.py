"""The build service as one object: everything the API offers, with no word of HTTP in it."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from firebrick.forge.address import check_branch, check_commit, parse_address
from firebrick.home import Home
from firebrick.node.contract import RunHost
from firebrick.node.event import Conclusion
from firebrick.server.artifact import Artifact, Manifest, read_manifest
from firebrick.server.build import Dependencies, Planner
from firebrick.server.clock import Clock, SystemClock
from firebrick.server.clockwork import open_clockwork
from firebrick.server.errors import (
    ArtifactNotFoundError,
    BuildBusyError,
    BuildNotFoundError,
    BuildOverError,
    HomeInUseError,
    KeyUsedError,
    QueueFullError,
    RequestError,
)
from firebrick.server.feed import Feeds
from firebrick.server.follow import Update, follow
from firebrick.server.gatekeeper import Gatekeeper, Held
from firebrick.server.intake import Papers, keep
from firebrick.server.log import Tail, read_tail, read_text
from firebrick.server.occasion import aimed
from firebrick.server.order import find_rerun
from firebrick.server.place import Place
from firebrick.server.plan import make_plan
from firebrick.server.queue import BuildQueue, open_queue
from firebrick.server.record import Build, BuildRequest, Counts, Repeat, State, derived_id, new_id
from firebrick.server.schedule import Due
from firebrick.server.scheduler import Demand
from firebrick.server.settings import ServeSettings
from firebrick.server.store import open_store, sqlite_url

_TAIL_BYTES: Final = 64 << 10


class Builds:
    """All builds of a server. Made by `open_builds`. Any number of calls may be under way at once."""

    def __init__(self, home: Home, deps: Dependencies, queue: BuildQueue, feeds: Feeds) -> None:
        self._home = home
        self._deps = deps
        self._store = deps.store
        self._queue = queue
        self._feeds = feeds
        self._settings = deps.settings
        self._gatekeeper = Gatekeeper(deps)
        self._closing = asyncio.Event()
        self._turn = asyncio.Lock()

    async def submit(self, request: BuildRequest, *, payload: Mapping[str, Any] | None = None, key: str = "") -> Build:
        """Keep a build and queue it. A credential in the request's address is taken out of it, and kept apart until the build has ended. `payload` is
        that of its event. Whatever comes with one `key` is one build, however often it comes.

        Raises AddressError and RefError for what cannot be cloned, RequestError for what does not fit, QueueFullError, KeyUsedError."""
        request = aimed(request, payload)
        address = parse_address(request.repo_url, protocols=self._settings.protocols)
        for name, check in ((request.branch, check_branch), (request.commit, check_commit)):
            if name:
                check(name)
        self._check_size(request)
        request = dataclasses.replace(request, repo_url=address.url)
        papers = Papers(address.credential, None if payload is None else msgspec.json.encode(payload))
        if not key:
            return await self._keep(new_id(), papers, lambda build_id: self._store.add(build_id, request))
        async with self._turn:
            return await self._once(derived_id("key", key), request, papers)

    async def _once(self, build_id: str, request: BuildRequest, papers: Papers) -> Build:
        known = await self._store.find(build_id)
        if known is None:
            return await self._keep(build_id, papers, lambda build_id: self._store.add(build_id, request))
        if (known.request, Place(self._home, build_id).payload()) != (request, papers.payload):
            raise KeyUsedError("the idempotency key came with another request before", hint="Make a new one.")
        return known

    async def rerun(self, build_id: str, repeat: Repeat) -> Build:
        """Another attempt at a build, on the commit it had: a build of its own. Raises BuildNotFoundError; BuildBusyError where an attempt has
        not ended; RequestError where nothing has failed; PlanError where there is no checkpoint; QueueFullError."""
        build = (await self._store.attempts((await self.find(build_id)).origin))[-1]
        if not build.state.final:
            raise BuildBusyError(
                f"{build.id}, the last attempt at this build, has not ended: it is {build.state.value}"
            )
        if repeat.failed and build.conclusion in (Conclusion.SUCCESS, Conclusion.SKIPPED):
            raise RequestError(f"nothing of {build.id} has failed", hint="Run all of it again.")
        said = self._settings.repository_for(self._settings.address_of(build.request.repo_url).place)
        if repeat.command and said.has_secrets:
            # A checkpoint has the secrets of its job in it, and whoever says what is run there can have them.
            raise RequestError(
                "a step of a repository with secrets cannot be given another command",
                hint="Leave `command` out; or take a checkpoint with `firebrick run`, which has the secrets you give it.",
            )
        repeat = dataclasses.replace(repeat, build=build.id)
        if repeat.step:
            await asyncio.to_thread(find_rerun, self._deps.node, build, repeat)
        own = next((each.path for each in build.verdicts if each.build == build.id), build.request.workflow)
        request = dataclasses.replace(build.request, workflow=own, repeat=repeat)
        if build.sha:
            branch = build.ref if build.ref.startswith("refs/") else ""
            request = dataclasses.replace(request, branch=branch, commit=build.sha)
        place = Place(self._home, build.id)
        papers = Papers(payload=place.payload(), earlier=place if repeat.failed else None)

        async def add(new: str) -> Build:
            added = await self._store.add_attempt(new, request, build.origin)
            if added is None:
                raise BuildBusyError("another attempt at this build has just begun")
            return added

        return await self._keep(new_id(), papers, add)

    async def attempts(self, build: Build) -> list[Build]:
        """All attempts at what this one is an attempt at, the first one first."""
        return await self._store.attempts(build.origin)

    async def held(self, build: Build) -> list[Held]:
        """The environments that jobs of the build have come to, and what each says of it."""
        return await self._gatekeeper.held(build)

    async def decide(self, build_id: str, environment: str, *, approved: bool, comment: str) -> Build:
        """Approve or reject that a build goes on in an environment it waits for. The same decision again is fine.

        Raises BuildNotFoundError; BuildBusyError where it does not wait for that environment, or was decided otherwise."""
        build = await self.find(build_id)
        now = self._deps.clock.now()
        if build.state.final:
            raise BuildOverError(f"build {build_id} has ended: it is {build.state.value}")
        gate = await self._store.gates.decide(build_id, environment, approved=approved, comment=comment, at=now)
        if gate is None:
            raise BuildBusyError(
                f"build {build_id} does not wait for the environment {environment}",
                hint="`firebrick approve BUILD` lists those it has come to.",
            )
        if gate.approved is not approved:
            said = "approved" if gate.approved else "rejected"
            raise BuildBusyError(f"build {build_id} was {said} for {gate.environment} before")
        if build.state is State.WAITING:
            await self._gatekeeper.admit_build(build)
            self._deps.gates.set()
        return await self.find(build_id)

    async def schedules(self) -> list[Due]:
        """Every schedule there is, the next one first."""
        return await self._store.schedules.all()

    async def find(self, build_id: str) -> Build:
        """Raises BuildNotFoundError."""
        build = await self._store.find(build_id)
        if build is None:
            raise BuildNotFoundError(f"there is no build {build_id}")
        return build

    async def page(self, limit: int, *, before: str | None = None, state: State | None = None) -> list[Build]:
        """The newest builds first, those that came before the build `before` if given. Raises BuildNotFoundError for an unknown `before`."""
        number = None if before is None else (await self.find(before)).number
        return await self._store.page(limit, before=number, state=state)

    async def cancel(self, build_id: str) -> Build:
        """Ask a build to end. Asking again is fine while it runs. Raises BuildNotFoundError, BuildOverError."""
        build = await self._queue.cancel(build_id)
        if build is None:
            over = await self.find(build_id)
            raise BuildOverError(f"build {build_id} has ended: it is {over.state.value}")
        return build

    async def counts(self) -> Counts:
        return await self._store.counts()

    async def tail(self, build: Build) -> Tail:
        """The last 64 KiB of its log."""
        return await asyncio.to_thread(read_tail, Place(self._home, build.id).log, _TAIL_BYTES)

    def text(self, build: Build) -> AsyncGenerator[str]:
        """The whole log so far, as text, in pieces."""
        return read_text(Place(self._home, build.id).log)

    def follow(self, build: Build, after: int = 0) -> AsyncGenerator[Update]:
        """See `firebrick.server.follow`."""
        log = Place(self._home, build.id).log
        return follow(build.id, log, after, store=self._store, feeds=self._feeds, closing=self._closing)

    async def manifest(self, build: Build) -> Manifest | None:
        """What the build left; None as long as that is not known."""
        return await asyncio.to_thread(read_manifest, Place(self._home, build.id).manifest)

    async def artifact(self, build: Build, path: str) -> tuple[Artifact, Path]:
        """One artifact of the manifest, and the directory it is below. Raises ArtifactNotFoundError."""
        manifest = await self.manifest(build)
        for artifact in manifest.artifacts if manifest else ():
            if artifact.path == path:
                return artifact, Place(self._home, build.id).artifacts
        raise ArtifactNotFoundError(f"build {build.id} has no artifact {path!r}")

    def close_followers(self) -> None:
        """Have every `follow` end, so that nobody keeps a connection open while the server closes."""
        self._closing.set()
        self._feeds.notify_all()

    def _check_size(self, request: BuildRequest) -> None:
        capacity = self._queue.capacity
        if not capacity.admits(Demand(0, "", request.vcpus, request.memory_mib)):
            raise RequestError(
                f"a build of {request.vcpus} vcpus and {request.memory_mib} MiB does not fit on this server",
                hint=f"It has {capacity.vcpus} vcpus and {capacity.memory_mib} MiB for builds.",
            )

    async def _keep(self, build_id: str, papers: Papers, add: Callable[[str], Awaitable[Build]]) -> Build:
        async with self._deps.adding:
            if await self._deps.is_full():
                raise QueueFullError(f"{self._settings.max_queued} builds are waiting already", hint="Try again later.")
            build = await keep(Place(self._home, build_id), papers, lambda: add(build_id))
        self._queue.wake()
        return build


@asynccontextmanager
async def open_builds(
    home: Home, node: RunHost, settings: ServeSettings, *, plan: Planner = make_plan, clock: Clock | None = None
) -> AsyncIterator[Builds]:
    """The builds of this home, run on this node. What a dead server left is taken up first. On exit nothing is under way, and builds
    that were are queued again. Raises HomeInUseError where another server has the home."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    feeds = Feeds()
    with _sole_owner(home):
        async with open_store(settings.database_url or sqlite_url(home.database)) as store:
            deps = Dependencies(store, node, plan, settings, feeds.publish, clock or SystemClock())
            async with (
                open_queue(home, deps, feeds, settings.capacity(node.machines)) as queue,
                open_clockwork(home, deps),
            ):
                builds = Builds(home, deps, queue, feeds)
                try:
                    yield builds
                finally:
                    builds.close_followers()


@contextmanager
def _sole_owner(home: Home) -> Iterator[None]:
    """Hold the home's lock. The kernel lets go of it when the process dies, however it does."""
    fd = os.open(home.root / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUseError(
                f"another firebrick serve runs on {home.root}",
                hint="Stop it first, or set FIREBRICK_HOME to another directory.",
            ) from None
        yield
    finally:
        os.close(fd)
