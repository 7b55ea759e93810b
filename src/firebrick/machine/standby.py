"""Machines of one snapshot that stand by: restored up to the moment in which they begin to run.

What is left for who takes one is the driver's last request and the first words with the agent: no process is started, no file placed, no network made, no
jail built. Each is used once, and has an identity of its own from when it is taken, as every restored machine has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from firebrick.guest.client import Identity
from firebrick.machine.driver import Driver, Prepared, VirtualMachine
from firebrick.machine.errors import SpecError, StateError
from firebrick.machine.machine import Machine
from firebrick.machine.place import Place, choose, own_directory
from firebrick.machine.restoring import check
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.start import BOOT_DEADLINE_S, begun, met, prepared_from
from firebrick.machine.stock import Stock


@dataclass(frozen=True, slots=True)
class _Standing:
    place: Place
    prepared: Prepared[VirtualMachine]


class Standby:
    """Made by `standby`. `restore` may be called by any number of tasks."""

    def __init__(self, taken: Snapshot, driver: Driver, home: Path, count: int) -> None:
        self._taken = taken
        self._driver = driver
        self._home = home
        self.stock: Stock[_Standing] = Stock(self._prepare, size=count, name="standby")

    @property
    def ready(self) -> int:
        """How many machines stand by."""
        return self.stock.ready

    async def full(self) -> None:
        """Wait until as many stand by as shall. Raises MachineError where none can."""
        await self.stock.full()

    @asynccontextmanager
    async def restore(
        self, *, hostname: str | None = None, identity: Identity | None = None, deadline: float = BOOT_DEADLINE_S
    ) -> AsyncIterator[Machine]:
        """A machine, as `firebrick.machine.restore` gives it. Where none stands by it is made from the beginning. Raises what that raises, and
        StateError where the context of `standby` is over: the snapshot may be gone then."""
        if self.stock.over:
            raise StateError("cannot take a machine: those that stood by are gone", hint="Take it inside of `standby`.")
        async with AsyncExitStack() as stack:
            standing = await self._alive(stack)
            identity = identity or standing.place.fresh_identity(self._taken.spec, hostname)
            virtual = begun(standing.prepared)
            yield await stack.enter_async_context(
                met(self._taken.spec, standing.place, virtual, identity, deadline, origin=self._taken)
            )

    async def _alive(self, stack: AsyncExitStack) -> _Standing:
        """One that was not lost while it stood: whatever the host killed is passed over. What is made now is taken as it is."""
        while True:
            waited = self.ready > 0
            standing = await stack.enter_async_context(self.stock.take())
            if not waited or not standing.prepared.ended():
                return standing
            await stack.aclose()

    async def _prepare(self, stack: AsyncExitStack) -> _Standing:
        directory = stack.enter_context(own_directory(None, self._home))
        place = Place(self._driver, self._home, directory, detached=False)
        return _Standing(place, await stack.enter_async_context(prepared_from(self._taken, place)))


@asynccontextmanager
async def standby(
    taken: Snapshot, driver: str | Driver = "auto", *, count: int, home: Path | None = None
) -> AsyncIterator[Standby]:
    """Keep `count` machines of a snapshot ready to run, as long as the context; another is made as soon as one was taken. What stands by costs the host a
    process and what its devices take, and the snapshot's memory only where it is used.

    The snapshot cannot be removed meanwhile. Raises SnapshotError where it is damaged, being removed, or does not fit this host; SpecError for a count
    below 1."""
    if count < 1:
        raise SpecError(f"cannot keep {count} machines standing by", hint="Say 1 or more.")
    chosen, home = choose(taken.driver if driver == "auto" else driver, home)
    with taken.used():
        await check(taken, chosen, home)
        async with AsyncExitStack() as stack:
            machines = Standby(taken, chosen, home, count)
            await stack.enter_async_context(machines.stock)
            yield machines
