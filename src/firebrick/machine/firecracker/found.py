"""A machine that lives on after the process that started it: its seat, its room and its Firecracker, found by what is in its directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from firebrick.machine import owner
from firebrick.machine.errors import MachineGoneError
from firebrick.machine.firecracker.vmm import Vmm, attended
from firebrick.machine.jail import record
from firebrick.machine.jail.found import held
from firebrick.machine.jail.record import Record
from firebrick.machine.jail.room import Room, Rooms
from firebrick.machine.seat import Seats


@asynccontextmanager
async def found(directory: Path, rooms: Rooms, seats: Seats) -> AsyncIterator[tuple[Room, Vmm]]:
    """All three are held as long as the context, and ended then, unless they are released. For the owner of the directory.

    Raises MachineGoneError, SpecError, HostError, and AdoptionError where somebody holds the seat."""
    jailed = record.read(directory)
    async with AsyncExitStack() as stack:
        seat = None if jailed is None else await held(stack, directory, jailed, seats)
        room = await stack.enter_async_context(rooms.find(directory, seat))
        try:
            vmm = await stack.enter_async_context(_attended(directory, room, jailed))
        except OSError as error:
            raise MachineGoneError(f"cannot take over machine {directory.name}: it has ended") from error
        yield room, vmm


def _attended(directory: Path, room: Room, jailed: Record | None) -> AbstractAsyncContextManager[Vmm]:
    if jailed is not None:
        return attended(room, jailed.pid, lambda: jailed.runs, directory)
    pids = owner.processes_of(directory.name)
    if len(pids) != 1:
        raise ProcessLookupError(f"processes {pids} are called after machine {directory.name}")
    return attended(room, pids[0], lambda: pids[0] in owner.processes_of(directory.name), directory)
