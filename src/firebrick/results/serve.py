"""The services, running in this process: a directory that several processes may share, and a unix socket of this one.

async with open_results(home.results, ResultsLimits()) as results:
    results.socket                       # what a guest's requests are passed on to
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from firebrick.database import Database, open_database, sqlite_url
from firebrick.results.app import create_app
from firebrick.results.artifact import Artifacts
from firebrick.results.blob import BlobStore
from firebrick.results.cache import Cache
from firebrick.results.clock import Clock, now_us
from firebrick.results.limits import ResultsLimits
from firebrick.results.parts import Parts
from firebrick.results.record import Watchers
from firebrick.results.staging import Staging
from firebrick.results.token import read_key
from firebrick.results.upload import Uploads
from firebrick.task import alongside, shielded
from firebrick.unix import listen_unix, new_name
from firebrick.web import Bounds, WebServer, web_config

_HEAD: Final = "0001"
# More than the machines of a node may have together: those of one, which are bounded where they come from, take none of another's.
_CONNECTIONS: Final = 8192
_GOODBYE_S: Final = 2
_SWEEP_S: Final = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Running services. Made by `open_results`."""

    socket: Path
    parts: Parts


@asynccontextmanager
async def open_results(
    directory: Path, limits: ResultsLimits, *, watchers: Watchers | None = None
) -> AsyncIterator[Results]:
    """Serve while the context lasts; `watchers` are told of the artifacts of their runs. What is under way at its end is cut off: the clients' jobs
    have ended by then."""
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(directory, limits, watchers=watchers))
        socket = new_name(directory / "sockets")
        door = stack.enter_context(listen_unix(socket))
        ready = asyncio.Event()
        config = web_config(create_app(parts), Bounds(connections=_CONNECTIONS), goodbye_s=_GOODBYE_S)
        server = WebServer(config, ready.set)
        task = asyncio.create_task(server.serve(sockets=[door]), name="results-serve")
        stack.push_async_callback(lambda: shielded(_stop(server, task)))
        await ready.wait()
        yield Results(socket=socket, parts=parts)


async def _stop(server: WebServer, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait([task])


@asynccontextmanager
async def open_parts(
    directory: Path, limits: ResultsLimits, *, clock: Clock = now_us, watchers: Watchers | None = None
) -> AsyncIterator[Parts]:
    """What the services are made over, without a socket. While the context lasts, what is over its time is removed now and then."""
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    blobs = BlobStore(directory / "blobs")
    staging = Staging(directory / "staging", most=limits.upload_bytes, free=limits.free_bytes)
    url = sqlite_url(directory / "results.db")
    async with open_database(url, scripts="firebrick.results:migrations", head=_HEAD) as database:
        uploads = Uploads(database, blobs, staging, clock)
        parts = Parts(
            key=read_key(directory / "key"),
            artifacts=Artifacts(database, blobs, uploads, limits, clock, watchers or Watchers()),
            cache=Cache(database, blobs, uploads, limits, clock),
            uploads=uploads,
        )
        await database.transact(blobs.drop_strays)
        async with alongside(_sweep_now_and_then(database, blobs, parts), name="results-sweep"):
            yield parts


async def _sweep_now_and_then(database: Database, blobs: BlobStore, parts: Parts) -> None:
    while True:
        try:
            await sweep(database, blobs, parts)
        except (OSError, SQLAlchemyError) as error:
            _log.warning("could not remove what is over its time", error=str(error))
        await asyncio.sleep(_SWEEP_S)


async def sweep(database: Database, blobs: BlobStore, parts: Parts) -> None:
    """Forget what is over its time, and remove what nothing refers to any more."""
    await database.transact(parts.artifacts.drop_expired)
    await database.transact(parts.cache.drop_unread)
    await parts.uploads.drop_old()
    while await database.transact(blobs.drop_unused):
        pass
