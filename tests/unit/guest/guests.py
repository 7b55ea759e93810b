"""Guests in memory, and what must be true of them afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from firebrick.guest.double import GuestDouble


@asynccontextmanager
async def guest_double(**options: float) -> AsyncIterator[GuestDouble]:
    """After the context nothing of the guest runs, and its host has done nothing wrong."""
    before = asyncio.all_tasks()
    double = GuestDouble(**options)
    yield double
    await double.close()
    assert double.violations == []
    left = [t.get_name() for t in asyncio.all_tasks() - before if t is not asyncio.current_task()]
    assert left == []
