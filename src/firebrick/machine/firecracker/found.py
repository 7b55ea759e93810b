"""A machine that lives on after the process that started it: its seat, its room and its Firecracker, found by what is in its directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from firebrick.machine import owner
from firebrick.machine.errors import AdoptionError, MachineGoneError
from firebrick.machine.firecracker.vmm import Vmm, attended
from firebrick.machine.jail import record
from firebrick.machine.jail.record import Record
from firebrick.machine.jail.room import Room, Rooms
from firebrick.machine.seat import Hold, Seat, Seats

_ATTEMPTS: Final = 50
_PAUSE_S: Final = 0.02


@asynccontextmanager
async def found(directory: Path, rooms: Rooms, seats: Seats) -> AsyncIterator[tuple[Room, Vmm]]:
    """All three are held as long as the context, and ended then, unless they are released. For the owner of the directory.

    Raises MachineGoneError, SpecError, HostError, and AdoptionError where somebody holds the seat."""
    jailed = record.read(directory)
    async with AsyncExitStack() as stack:
        seat = None if jailed is None else await _held(stack, directory, jailed, seats)
        room = await stack.enter_async_context(rooms.find(directory, seat))
        try:
            vmm = await stack.enter_async_context(_attended(directory, room, jailed))
        except OSError as error:
            raise MachineGoneError(f"cannot take over machine {directory.name}: it has ended") from error
        yield room, vmm


async def _held(stack: AsyncExitStack, directory: Path, jailed: Record, seats: Seats) -> Seat:
    """Who looks for a free seat has each for a moment: some attempts are right."""
    seat = Seat(jailed.seat, jailed.uid, jailed.gid, Path(jailed.lock))
    for _ in range(_ATTEMPTS):
        async with AsyncExitStack() as attempt:
            hold = attempt.enter_context(seats.take_over(seat, directory))
            if hold is Hold.LOST:
                raise MachineGoneError(f"cannot take over machine {directory.name}: its seat is not its own any more")
            if hold is Hold.KEPT:
                stack.push_async_callback(attempt.pop_all().aclose)
                return seat
        await asyncio.sleep(_PAUSE_S)
    raise AdoptionError(f"cannot take over machine {directory.name}: another process has its seat")


def _attended(directory: Path, room: Room, jailed: Record | None) -> AbstractAsyncContextManager[Vmm]:
    if jailed is not None:
        return attended(room, jailed.pid, lambda: jailed.runs, directory)
    pids = owner.processes_of(directory.name)
    if len(pids) != 1:
        raise ProcessLookupError(f"processes {pids} are called after machine {directory.name}")
    return attended(room, pids[0], lambda: pids[0] in owner.processes_of(directory.name), directory)
