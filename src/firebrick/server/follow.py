"""Following a build: its states and the lines of its log as they come, from any line on, until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.server.errors import BuildNotFoundError
from firebrick.server.feed import Feeds
from firebrick.server.log import LogReader
from firebrick.server.record import Build, State
from firebrick.server.store import Store

_QUIET_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of the log, as they are in its file; `first` is the number of the first of them."""

    first: int
    lines: list[bytes]


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing has happened for a while."""


Update = Lines | Build | Quiet


async def follow(
    build_id: str, log: Path, after: int, *, store: Store, feeds: Feeds, closing: asyncio.Event
) -> AsyncGenerator[Update]:
    """The build whenever its state changes, and the lines behind line `after`. Ends with the build in its last state, after its last
    line; or without it, when the server closes: then one may ask again, after the last line one has got."""
    feed = feeds.of(build_id)
    if feed.build is None:
        feed.seed(await store.find(build_id))
    state: State | None = None
    reader = LogReader(log, after)
    try:
        while not closing.is_set():
            change, build = feed.change, feed.build
            if build is None:
                raise BuildNotFoundError(f"there is no build {build_id}")
            if build.state is not state and not build.state.final:
                state = build.state
                yield build
            async for lines in _lines(reader, after):
                yield lines
            if build.state.final:
                yield build
                return
            if not await _changed(change):
                yield Quiet()
    finally:
        reader.close()


async def _lines(reader: LogReader, after: int) -> AsyncGenerator[Lines]:
    while True:
        # To get to a place far behind may take a while; from there on it is one read of what is in the page cache.
        lines = await asyncio.to_thread(reader.read) if reader.line < after else reader.read()
        if not lines:
            return
        yield Lines(reader.line - len(lines) + 1, lines)
        await asyncio.sleep(0)


async def _changed(change: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(change.wait(), _QUIET_S)
    except TimeoutError:
        return False
    return True
