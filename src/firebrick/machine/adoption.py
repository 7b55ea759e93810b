"""Adopting: a machine that another process has left running."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firebrick.machine import owner, record
from firebrick.machine.driver import Driver
from firebrick.machine.errors import MachineError, SnapshotError
from firebrick.machine.machine import Machine
from firebrick.machine.place import Place, choose
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.start import BOOT_DEADLINE_S, met


@asynccontextmanager
async def adopt(
    directory: Path, driver: str | Driver = "auto", *, home: Path | None = None, deadline: float = BOOT_DEADLINE_S
) -> AsyncIterator[Machine]:
    """Go on with a machine that was started detached by a process that is gone, or has released it: `directory` is the machine's. It keeps its
    names and what runs in it; commands that were not detached ended with their connection. It ends with this context, unless it is released.

    Raises AdoptionError where it has an owner, and of several who try, one gets it; MachineGoneError where it has ended, and then its directory
    is removed; BootError where its agent does not answer any more."""
    directory = directory.absolute()
    with owner.taken_over(directory):
        left = record.read(directory)
        chosen, home = choose(left.driver if driver == "auto" else driver, home)
        if chosen.name != left.driver:
            raise MachineError(f"cannot take over the machine in {directory}: it is one of the driver {left.driver}")
        place = Place(chosen, home, directory, detached=True)
        virtual = chosen.adopt(left.spec, directory)
        origin = _found(left.origin)
        async with met(left.spec, place, virtual, left.identity(), deadline, origin=origin, adopted=True) as machine:
            yield machine


def _found(origin: Path | None) -> Snapshot | None:
    """What the machine was restored from, if it is there still."""
    with contextlib.suppress(SnapshotError):
        return Snapshot.load(origin) if origin is not None else None
    return None
