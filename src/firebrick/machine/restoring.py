"""Restoring: a machine from a snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from firebrick.guest.client import Identity
from firebrick.machine import trust
from firebrick.machine.driver import Driver
from firebrick.machine.machine import Machine
from firebrick.machine.place import Place, choose, own_directory
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.start import BOOT_DEADLINE_S, started_from


@asynccontextmanager
async def restore(
    taken: Snapshot,
    driver: str | Driver = "auto",
    *,
    directory: Path | None = None,
    home: Path | None = None,
    hostname: str | None = None,
    identity: Identity | None = None,
    deadline: float = BOOT_DEADLINE_S,
    detached: bool = False,
) -> AsyncIterator[Machine]:
    """Start a machine from a snapshot. Any number may be; each has an identity of its own, unless one is given: two machines must then never be
    taken for one. Where another machine has the ports of the host that its specification forwards, restore `taken.with_forwards(...)`. The rest is as
    with `launch`.

    A snapshot that was not read through on this host before is now; it cannot be removed until the machine has started. Raises SnapshotError where it
    is damaged, being removed, or does not fit this host, BootError where the machine does not come up."""
    chosen, home = choose(taken.driver if driver == "auto" else driver, home)
    async with AsyncExitStack() as stack:
        with taken.used():
            await check(taken, chosen, home)
            place = Place(chosen, home, stack.enter_context(own_directory(directory, home)), detached)
            identity = identity or place.fresh_identity(taken.spec, hostname)
            starting = started_from(taken, place, identity, deadline, origin=taken)
            machine = await stack.enter_async_context(starting)
        yield machine


async def check(taken: Snapshot, driver: Driver, home: Path) -> None:
    """See that a snapshot fits this host, and read through what was not read before. Raises SnapshotError."""
    taken.check(await driver.facts(taken.spec))
    if not all(trust.is_trusted(link, home / "cache") for link in taken.chain):
        await asyncio.to_thread(trust.verify, taken, home / "cache")
