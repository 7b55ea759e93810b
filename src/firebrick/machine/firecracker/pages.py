"""The page server beside a machine that is restored: the machine's memory comes from it, counts as the machine's, and ends the machine when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from firebrick.machine.errors import HostError
from firebrick.machine.firecracker import config
from firebrick.machine.firecracker.vmm import Vmm
from firebrick.machine.jail.room import Room
from firebrick.machine.pager import is_list
from firebrick.machine.seat import Seat

LIST: Final = "prefetch"
"""In a snapshot's directory: the pages a machine that was restored from it used first. No part of the snapshot: it may be removed."""

RECORD_S: Final = 10.0


class PageServer(Protocol):
    """One that runs, as the process `pid`. `ended` is done when it has ended: with None when its machine ended first, else with what went wrong."""

    @property
    def pid(self) -> int: ...

    @property
    def ended(self) -> asyncio.Task[HostError | None]: ...

    async def recorded(self) -> Path:
        """Write the list `record` now. Raises HostError."""


class Pager(Protocol):
    """What serves the pages of the file `memory` to the VMM in the directory `root`, on the socket PAGES_SOCKET there, as long as the context."""

    def __call__(
        self,
        root: Path,
        *,
        memory: Path,
        seat: Seat | None = None,
        prefetch: Path | None = None,
        record: Path | None = None,
    ) -> AbstractAsyncContextManager[PageServer]: ...


@dataclass(frozen=True, slots=True)
class Served:
    """What serves a machine its pages; `records`: and lists them."""

    server: PageServer
    records: bool


@dataclass(frozen=True, slots=True)
class Pages:
    """Page servers for the machines of a driver. With `prefetch` the first machine of a snapshot has the pages listed that it uses in its first
    RECORD_S seconds, and later ones get those ahead; a snapshot's directory that cannot be written gets no list."""

    pager: Pager
    prefetch: bool

    @asynccontextmanager
    async def serving(self, room: Room, snapshot: Path) -> AsyncIterator[Served]:
        """Raises HostError, SnapshotError."""
        options: dict[str, Path] = {}
        listed = snapshot / LIST
        if self.prefetch:
            known = await asyncio.to_thread(_is_listed, listed)
            options = {"prefetch" if known else "record": listed}
        async with self.pager(room.root, memory=snapshot / config.MEMORY, seat=room.seat, **options) as server:
            room.join(server.pid)
            yield Served(server, "record" in options)


@asynccontextmanager
async def watched(vmm: Vmm, served: Served | None) -> AsyncIterator[None]:
    """A machine whose page server dies stands still for ever: it is ended."""
    if served is None:
        yield
        return
    server = served.server

    def ended(task: asyncio.Task[HostError | None]) -> None:
        if not task.cancelled() and (error := task.exception() or task.result()) is not None:
            vmm.fail(f"its page server ended: {error}")

    server.ended.add_done_callback(ended)
    try:
        yield
    finally:
        server.ended.remove_done_callback(ended)


@asynccontextmanager
async def noted(served: Served | None) -> AsyncIterator[None]:
    """From when the machine runs, which is when its pages begin to count: what it has used is listed in time, or at its end."""
    if served is None or not served.records:
        yield
        return
    noting = asyncio.create_task(_note(served.server), name="pages-noted")
    try:
        yield
    finally:
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)


async def _note(server: PageServer) -> None:
    await asyncio.sleep(RECORD_S)
    with contextlib.suppress(HostError):
        await server.recorded()


def _is_listed(listed: Path) -> bool:
    try:
        return is_list(listed.read_bytes())
    except OSError:
        return False
