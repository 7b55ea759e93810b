"""Slots made before they are wanted.

Making a slot takes longer than restoring a machine, taking a made one takes a policy's rules. A slot is used once: nothing of a guest's connections,
names, neighbours and counts is in a namespace that did not exist then, and its removal is as much in the background as its making. No delay is needed
before its seat is used again: what arrives late finds a namespace that knows of no such connection, and is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

from firebrick.machine.errors import HostError, MachineError, SpecError
from firebrick.machine.network import leftovers
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.policy import NOTHING_ALLOWED, NetworkPolicy
from firebrick.machine.network.slot import Slot, opened
from firebrick.machine.seat import Seats
from firebrick.task import shielded

_AT_ONCE: Final = 2
# About as long as a machine takes to start.
_LULL_S: Final = 0.5
_Made = tuple[Slot, AsyncExitStack]


class SlotPool:
    """`async with pool:` keeps `size` slots ready; all of them are gone when that ends. `slot` may be called by any number of tasks.

    Those that wait have `policy` already: who takes one with that very policy waits for nothing at all, who takes one with another for its rules.
    Making and removing go on in at most two tasks each, so that they do not take the host from the machines; and as long as more than half of the
    slots wait, making another one waits until who took the last has had time to start."""

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
        self._size = size
        self._ready: deque[_Made] = deque()
        self._wanted = asyncio.Event()
        self._filled = asyncio.Event()
        self._making = asyncio.Semaphore(_AT_ONCE)
        self._removing = asyncio.Semaphore(_AT_ONCE)
        self._removals: set[asyncio.Task[None]] = set()
        self._underway = 0
        self._taken = -_LULL_S
        self._over = False
        self._failure: MachineError | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._host.ready())
            await leftovers.sweep(self._seats, self._host)
            stack.push_async_callback(lambda: shielded(self._empty()))
            self._wanted.set()
            fillers = [asyncio.create_task(self._fill(), name=f"slots-{n}") for n in range(_AT_ONCE)]
            stack.push_async_callback(lambda: shielded(_cancelled(fillers)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def ready(self) -> int:
        """How many slots wait to be taken."""
        return len(self._ready)

    async def full(self) -> None:
        """Wait until as many are ready as shall be. Raises HostError where none can be made."""
        await self._filled.wait()
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def slot(self, policy: NetworkPolicy, occupant: Path) -> AsyncIterator[Slot]:
        """A slot with this policy for the machine whose directory is `occupant`. Where none is ready one is made.

        On exit nothing passes it any more and its ports are given back; it is removed in the background. Raises HostError."""
        slot, made = await self._take()
        try:
            self._seats.occupy(slot.seat, occupant)
            await slot.apply(policy)
            yield slot
        finally:
            try:
                with contextlib.suppress(HostError):  # what is broken is removed below
                    await slot.close()
            finally:
                await self._retire(slot, made)

    async def _take(self) -> _Made:
        if not self._ready:
            async with self._making:
                return await self._make()
        taken = self._ready.popleft()
        self._taken = time.monotonic()
        self._filled.clear()
        self._wanted.set()
        return taken

    async def _make(self) -> _Made:
        async with AsyncExitStack() as stack:
            seat = stack.enter_context(self._seats.take())
            slot = await stack.enter_async_context(opened(seat, self._host))
            await slot.apply(self._policy)
            return slot, stack.pop_all()

    async def _fill(self) -> None:
        """Make slots while some are wanted. A host that cannot is asked again when the next slot is taken; who takes it hears why."""
        while True:
            await self._wanted.wait()
            if len(self._ready) + self._underway >= self._size:
                self._wanted.clear()
                continue
            if (lull := self._lull()) > 0:
                await self._pause(lull)
                continue
            self._underway += 1
            try:
                async with self._making:
                    self._ready.append(await self._make())
            except MachineError as error:
                self._wanted.clear()
                self._failure = error
                self._filled.set()
            finally:
                self._underway -= 1
            if len(self._ready) >= self._size:
                self._failure = None
                self._filled.set()

    def _lull(self) -> float:
        """How many seconds the next slot has time."""
        plenty = 2 * len(self._ready) > self._size
        return self._taken + _LULL_S - time.monotonic() if plenty else 0.0

    async def _pause(self, lull: float) -> None:
        """Until the lull is over, or another slot is taken."""
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lull):
                await self._wanted.wait()
        self._wanted.set()

    async def _retire(self, slot: Slot, made: AsyncExitStack) -> None:
        task = asyncio.create_task(self._remove(made), name=f"remove-{slot.seat.name}")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        if self._over:
            await shielded(_ended([task]))

    async def _remove(self, made: AsyncExitStack) -> None:
        async with self._removing:
            await made.aclose()

    async def _empty(self) -> None:
        self._over = True
        async with AsyncExitStack() as stack:
            while self._ready:
                stack.push_async_callback(self._ready.pop()[1].aclose)
        await _ended(self._removals)


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for all, then raise what the first of them raised."""
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await _ended(tasks)
