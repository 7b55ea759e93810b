"""Slots made before they are wanted.

Making a slot takes longer than restoring a machine, taking a made one takes a policy's rules. A slot is used once: nothing of a guest's connections,
names, neighbours and counts is in a namespace that did not exist then, and its removal is as much in the background as its making. No delay is needed
before its seat is used again: what arrives late finds a namespace that knows of no such connection, and is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.network import leftovers
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.policy import NOTHING_ALLOWED, NetworkPolicy
from firebrick.machine.network.slot import Slot, opened
from firebrick.machine.seat import Seats
from firebrick.machine.stock import Stock


class SlotPool:
    """`async with pool:` keeps `size` slots ready; all of them are gone when that ends. `slot` may be called by any number of tasks.

    Those that wait have `policy` already: who takes one with that very policy waits for nothing at all, who takes one with another for its rules."""

    def __init__(
        self,
        seats: Seats | None = None,
        host: HostNetwork | None = None,
        *,
        size: int = 4,
        policy: NetworkPolicy = NOTHING_ALLOWED,
    ) -> None:
        if policy.forwards:
            raise SpecError("cannot make slots that have ports of the host ahead", hint="Leave the forwards out.")
        self._policy = policy
        self._seats = seats or Seats()
        self._host = host or HostNetwork()
        self._stock = Stock(self._make, size=size, name="slots", lazily=True)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._host.ready())
            await leftovers.sweep(self._seats, self._host)
            await stack.enter_async_context(self._stock)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def ready(self) -> int:
        """How many slots wait to be taken."""
        return self._stock.ready

    async def full(self) -> None:
        """Wait until as many are ready as shall be. Raises HostError where none can be made."""
        await self._stock.full()

    @asynccontextmanager
    async def slot(self, policy: NetworkPolicy, occupant: Path) -> AsyncIterator[Slot]:
        """A slot with this policy for the machine whose directory is `occupant`. Where none is ready one is made.

        On exit nothing passes it any more and its ports are given back; it is removed in the background. Raises HostError."""
        async with self._stock.take() as slot:
            try:
                self._seats.occupy(slot.seat, occupant)
                await slot.apply(policy)
                yield slot
            finally:
                with contextlib.suppress(HostError):  # what is broken is removed
                    await slot.close()

    async def _make(self, stack: AsyncExitStack) -> Slot:
        seat = stack.enter_context(self._seats.take())
        slot = await stack.enter_async_context(opened(seat, self._host))
        await slot.apply(self._policy)
        return slot
