"""The seat of a jailed machine that lives on without its owner, for whoever goes on with the machine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from firebrick.machine.errors import AdoptionError, MachineGoneError
from firebrick.machine.jail.record import Record
from firebrick.machine.seat import Hold, Seat, Seats

_ATTEMPTS: Final = 50
_PAUSE_S: Final = 0.02


async def held(stack: AsyncExitStack, directory: Path, jailed: Record, seats: Seats) -> Seat:
    """It, held until `stack` is left. Who looks for a free seat has each for a moment: some attempts are right.

    Raises MachineGoneError where it is not the machine's any more, AdoptionError where somebody holds it."""
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
