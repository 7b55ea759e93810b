"""From a virtual machine a driver makes to a machine that takes requests: what launching, restoring, forking and adopting have in common."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from firebrick.guest.client import Identity
from firebrick.guest.errors import GuestError
from firebrick.machine.driver import Exit, Prepared, VirtualMachine
from firebrick.machine.errors import BootError
from firebrick.machine.machine import END_PATIENCE_S, Machine
from firebrick.machine.place import Place, own_directory
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.spec import MachineSpec
from firebrick.task import shielded

BOOT_DEADLINE_S: Final = 60.0
_WHOLE: Final = "whole"


@asynccontextmanager
async def met(
    spec: MachineSpec,
    place: Place,
    virtual: AbstractAsyncContextManager[VirtualMachine],
    identity: Identity,
    deadline: float,
    *,
    origin: Snapshot | None = None,
    adopted: bool = False,
) -> AsyncIterator[Machine]:
    """A virtual machine, met: from its start to an agent that takes requests. Raises BootError where it does not answer in `deadline` seconds."""
    async with AsyncExitStack() as stack:
        vm = await stack.enter_async_context(virtual)
        machine = Machine(spec, place, vm, identity, origin, forked)
        stack.push_async_callback(lambda: shielded(machine.leave()))
        deadline = place.driver.patience(deadline)
        try:
            await stack.enter_async_context(machine.greeted(deadline, adopted=adopted))
        except (GuestError, TimeoutError, OSError) as error:
            raise await _boot_error(machine, error, deadline) from error
        yield machine


@asynccontextmanager
async def started_from(
    taken: Snapshot, place: Place, identity: Identity, deadline: float, *, origin: Snapshot | None
) -> AsyncIterator[Machine]:
    """A machine from a snapshot that was checked."""
    source = await _source(taken, place)
    virtual = place.driver.restore(taken.spec, source, place.directory, detached=place.detached)
    async with met(taken.spec, place, virtual, identity, deadline, origin=origin) as machine:
        await _drop(source, taken)
        yield machine


@asynccontextmanager
async def prepared_from(taken: Snapshot, place: Place) -> AsyncIterator[Prepared[VirtualMachine]]:
    """The same, up to where it would begin to run; for `begun`."""
    source = await _source(taken, place)
    async with place.driver.prepare(taken.spec, source, place.directory) as prepared:
        await _drop(source, taken)
        yield prepared


@asynccontextmanager
async def begun(prepared: Prepared[VirtualMachine]) -> AsyncIterator[VirtualMachine]:
    """What was prepared, as what a driver makes: for `met`. It ends with what prepared it."""
    yield await prepared.begin()


@asynccontextmanager
async def forked(taken: Snapshot, like: Place, hostname: str | None) -> AsyncIterator[Machine]:
    """From a snapshot that was just taken of a machine in the place `like`, and will be gone."""
    with own_directory(None, like.home) as own:
        place = replace(like, directory=own, detached=False)
        identity = place.fresh_identity(taken.spec, hostname)
        async with started_from(taken, place, identity, BOOT_DEADLINE_S, origin=None) as machine:
            yield machine


async def _source(taken: Snapshot, place: Place) -> Path:
    """The directory a driver restores from: of a difference, and what it builds on, one memory is made."""
    if taken.base is None:
        return taken.path
    source = place.directory / _WHOLE
    source.mkdir()
    await shielded(asyncio.to_thread(taken.make_whole, source))
    return source


async def _drop(source: Path, taken: Snapshot) -> None:
    """The machine has names of its own for all in it."""
    if source != taken.path:
        await shielded(asyncio.to_thread(shutil.rmtree, source))


async def _boot_error(machine: Machine, error: Exception, deadline: float) -> BootError:
    """Silent, or dead? A machine that lost its agent is most likely about to end: it is given a moment to."""
    end: Exit | None = None
    if not isinstance(error, TimeoutError):
        with contextlib.suppress(TimeoutError):
            end = await asyncio.wait_for(machine.wait(), END_PATIENCE_S)
    if end is not None:
        what = f"it ended before its agent answered: {end.message}"
    elif isinstance(error, TimeoutError):
        what = f"its agent did not answer within {deadline:g} s"
    else:
        what = str(error)
    return BootError(
        f"machine {machine.id} did not start: {what}",
        hint="The console says more; a kernel without the modules for its devices, or an initramfs without the agent, ends like this.",
        console=machine.console(),
    )
