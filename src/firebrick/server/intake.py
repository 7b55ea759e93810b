"""Taking a build in: its directory first, then its row. A directory without a row is swept at the next start; a row without a directory would be a
build gone wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from firebrick.forge.address import Credential
from firebrick.server.place import Place
from firebrick.server.record import Build
from firebrick.task import shielded


@dataclass(frozen=True, slots=True)
class Papers:
    """What is kept with a build besides its row: see `Place.create`."""

    credential: Credential | None = None
    payload: bytes | None = None
    earlier: Place | None = None


async def keep(place: Place, papers: Papers, add: Callable[[], Awaitable[Build]]) -> Build:
    """Make the directory, which must not be there, and then the row, by `add`; where that fails nothing is left. Once begun it is done."""
    return await shielded(_keep(place, papers, add))


async def _keep(place: Place, papers: Papers, add: Callable[[], Awaitable[Build]]) -> Build:
    await asyncio.to_thread(place.create, papers.credential, papers.payload, papers.earlier)
    try:
        return await add()
    except BaseException:
        await asyncio.to_thread(place.remove)
        raise
