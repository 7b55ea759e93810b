"""The build service as one object: everything the API offers, with no word of HTTP in it."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from firebrick.forge.address import Credential, check_branch, check_commit, parse_address
from firebrick.home import Home
from firebrick.node.contract import RunHost
from firebrick.server.artifact import Artifact, Manifest, read_manifest
from firebrick.server.build import Planner, Tools
from firebrick.server.errors import (
    ArtifactNotFoundError,
    BuildNotFoundError,
    BuildOverError,
    HomeInUseError,
    QueueFullError,
    RequestError,
)
from firebrick.server.feed import Feeds
from firebrick.server.follow import Update, follow
from firebrick.server.log import Tail, read_tail, read_text
from firebrick.server.place import Place
from firebrick.server.plan import make_plan
from firebrick.server.queue import BuildQueue, open_queue
from firebrick.server.record import Build, BuildRequest, Counts, State
from firebrick.server.scheduler import Demand
from firebrick.server.settings import ServeSettings
from firebrick.server.store import Store, open_store, sqlite_url
from firebrick.task import shielded

_TAIL_BYTES: Final = 64 << 10


class Builds:
    """All builds of a server. Made by `open_builds`. Any number of calls may be under way at once."""

    def __init__(self, home: Home, store: Store, queue: BuildQueue, feeds: Feeds, settings: ServeSettings) -> None:
        self._home = home
        self._store = store
        self._queue = queue
        self._feeds = feeds
        self._settings = settings
        self._closing = asyncio.Event()

    async def submit(self, request: BuildRequest) -> Build:
        """Keep a build and queue it. A credential in the request's address is taken out of it, and kept apart until the build has ended.

        Raises AddressError and RefError for what cannot be cloned, RequestError for what does not fit, QueueFullError."""
        address = parse_address(request.repo_url, protocols=self._settings.protocols)
        for name, check in ((request.branch, check_branch), (request.commit, check_commit)):
            if name:
                check(name)
        self._check_size(request)
        build_id = f"build_{uuid.uuid4()}"
        if await self._store.count(State.QUEUED) >= self._settings.max_queued:
            raise QueueFullError(f"{self._settings.max_queued} builds are waiting already", hint="Try again later.")
        return await shielded(
            self._keep(build_id, dataclasses.replace(request, repo_url=address.url), address.credential)
        )

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

    async def _keep(self, build_id: str, request: BuildRequest, credential: Credential | None) -> Build:
        """The directory first: a directory without a row is swept at the next start, a row without a directory would be a build gone wrong."""
        place = Place(self._home, build_id)
        await asyncio.to_thread(place.create, credential)
        try:
            build = await self._store.add(build_id, request)
        except BaseException:
            await asyncio.to_thread(place.remove)
            raise
        self._queue.wake()
        return build


@asynccontextmanager
async def open_builds(
    home: Home, node: RunHost, settings: ServeSettings, *, plan: Planner = make_plan
) -> AsyncIterator[Builds]:
    """The builds of this home, run on this node. What a dead server left is taken up first. On exit nothing is under way, and builds
    that were are queued again. Raises HomeInUseError where another server has the home."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    feeds = Feeds()
    with _sole_owner(home):
        async with open_store(settings.database_url or sqlite_url(home.database)) as store:
            tools = Tools(store, node, plan, settings, feeds.publish)
            async with open_queue(home, tools, feeds, settings.capacity(node.machines)) as queue:
                builds = Builds(home, store, queue, feeds, settings)
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
