"""The artifact and cache services for the jobs of one node: each job's machine has a port of its own that leads to them, and no network by it.

They are started when the first action speaks to them, which most runs never do: before that there is no database, no server, and nothing of them
loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firebrick.node.errors import StepError
from firebrick.node.guest import Guest
from firebrick.node.hosts import add_names
from firebrick.node.order import RunOrder
from firebrick.node.relay import HostSocket, Stream, relay
from firebrick.node.results.archive import pack
from firebrick.node.results.shelf import ArtifactShelf
from firebrick.node.scope import run_scopes, tenant_of
from firebrick.results.errors import InvalidError, ResultsError
from firebrick.results.limits import ResultsLimits
from firebrick.results.record import ZIP, Artifact, Offer, Watchers
from firebrick.task import shielded

if TYPE_CHECKING:
    from firebrick.results.serve import Results
    from firebrick.results.token import Grant

# Of the work that comes after a job's own time: its last steps.
_AFTERWARDS_S: Final = 3600.0


class NodeResults:
    """A target of relays. `close` ends the services, if they were started; by then no job is left."""

    def __init__(self, directory: Path, limits: ResultsLimits) -> None:
        self._directory = directory
        self._limits = limits
        self._watchers = Watchers()
        self._tokens: dict[tuple[str, str], dict[str, str]] = {}
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._results: Results | None = None

    async def close(self) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def watched(self, order: RunOrder, shelf: ArtifactShelf) -> AsyncIterator[None]:
        """While the context lasts, what clients store in this run comes to the shelf, and what is on the shelf is shown to clients. Nothing comes
        to the shelf when it is left: what is half there by then is waited for."""
        watcher = _ShelfWatcher(shelf)
        run = (tenant_of(order), order.id)
        self._tokens[run] = {}
        try:
            with self._watchers.watched(*run, watcher):
                yield
        finally:
            del self._tokens[run]
            await shielded(watcher.idle.wait())

    @asynccontextmanager
    async def offered(
        self, guest: Guest, order: RunOrder, job: str, *, server_url: str
    ) -> AsyncIterator[Mapping[str, str]]:
        """The variables by which actions of this job find the services, and a port in its machine that leads there while the context lasts. The
        token is the same in all machines of the job: each is one more text its log masks.

        Raises what `Agent.listen` raises, AgentError, and ResultsError where the host's secret cannot be read."""
        # Imported here: a run without actions shall not wait for it.
        from firebrick.results.token import read_key, sign_grant
        from firebrick.results.variables import HOST, runtime_variables

        key = await asyncio.to_thread(read_key, self._directory / "key")
        grant, lifetime_s = _grant(order, job), order.resources.timeout_s + _AFTERWARDS_S
        tokens = self._tokens[tenant_of(order), order.id]
        if job not in tokens:
            tokens[job] = sign_grant(key, grant, lifetime_s=lifetime_s)
        async with relay(guest, self) as port:
            await add_names(guest.files, {HOST: "127.0.0.1"})
            yield runtime_variables(tokens[job], grant, port=port, server_url=server_url)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        """A connection to the services. Raises OSError where they cannot be had."""
        results = await self._running()
        async with HostSocket(results.socket).open() as stream:
            yield stream

    async def _running(self) -> Results:
        async with self._turn:
            if self._results is None:
                from sqlalchemy.exc import SQLAlchemyError

                from firebrick.results.serve import open_results

                opened = open_results(self._directory, self._limits, watchers=self._watchers)
                try:
                    self._results = await self._stack.enter_async_context(opened)
                except (ResultsError, SQLAlchemyError) as error:
                    raise OSError(f"the artifact and cache services cannot be started: {error}") from error
            return self._results


def _grant(order: RunOrder, job: str) -> Grant:
    from firebrick.results.token import Grant

    scopes = run_scopes(order)
    return Grant(
        tenant=tenant_of(order),
        repository=order.source.repository,
        run=order.id,
        job=job,
        read=scopes.read,
        write=scopes.write,
    )


class _ShelfWatcher:
    """The artifact directory of a run, as the services see it."""

    def __init__(self, shelf: ArtifactShelf) -> None:
        self._shelf = shelf
        self._under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def keep(self, artifact: Artifact, content: Path) -> None:
        try:
            with self._busy():
                await self._shelf.unpack(artifact.job, artifact.name, content, archive=artifact.mime == ZIP)
        except StepError as error:
            raise InvalidError(str(error), hint=error.hint) from error

    async def drop(self, artifact: Artifact) -> None:
        with self._busy():
            await self._shelf.remove(artifact.name)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._under_way += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self.idle.set()

    def offers(self) -> Sequence[Offer]:
        return [
            Offer(job=each.job, name=each.name, version=each.version, write=partial(pack, each.directory))
            for each in self._shelf.stored()
        ]
