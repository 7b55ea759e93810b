"""A QEMU that runs: started with everything it needs in its arguments and inherited descriptors, or found, where another process has started it.

The parent's copies of what it inherits are closed as soon as it has them: when it ends, its ends do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.machine import host, owner
from firebrick.machine.accel import Accelerator
from firebrick.machine.command import Plan, command
from firebrick.machine.errors import HostError, MachineGoneError
from firebrick.machine.jail import record
from firebrick.machine.jail.bubble import BubbleRoom
from firebrick.machine.network.slot import Slot
from firebrick.machine.qemu import outputs, sockets
from firebrick.machine.qemu.outputs import COMPLAINT_BYTES, Outputs
from firebrick.machine.qemu.vm import QemuMachine, Shape, Vmm
from firebrick.process import PIPE, Process, ProcessError, attend, spawn
from firebrick.task import shielded

_LAST_WORDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """How it starts: `state` is that of the devices, where a machine is restored; `tsc_khz` the rate of its counter, where it must be told; `stopped`: its
    processors stand still until it is resumed."""

    accelerator: Accelerator
    detached: bool
    state: Path | None = None
    tsc_khz: int | None = None
    stopped: bool = False


@asynccontextmanager
async def started(shape: Shape, how: Start) -> AsyncIterator[QemuMachine]:
    """QEMU, running as long as the context, unless it is released. Raises HostError."""
    room = shape.around.room
    async with AsyncExitStack() as stack:
        with ExitStack() as inherited:
            plan = await _plan(shape, how, inherited)
            fds = [plan.agent_fd, plan.monitor_fd, plan.state_fd, plan.tap_fd, shape.mapping.fd]
            argv = command(plan) if room is None else room.argv(command(plan))
            process, written = await _spawned(
                argv,
                [*(fd for fd in fds if fd is not None), *(room.fds if room is not None else ())],
                shape.around.directory if how.detached else None,
                stack,
            )
        pid = process.pid if room is None else await _jailed(process, room, written)
        machine = QemuMachine(Vmm(process, pid, written), shape)
        stack.push_async_callback(lambda: shielded(machine.close()))
        yield machine


@asynccontextmanager
async def attended(shape: Shape) -> AsyncIterator[QemuMachine]:
    """The QEMU that was started, detached, with this shape. Raises MachineGoneError."""
    async with AsyncExitStack() as stack:
        try:
            pid, is_right = _found(shape)
            process = await stack.enter_async_context(attend(pid, is_right))
            written = await stack.enter_async_context(outputs.found(shape.around.directory))
        except (ProcessLookupError, FileNotFoundError) as error:
            raise MachineGoneError(f"cannot take over machine {shape.machine}: it has ended") from error
        try:
            machine = QemuMachine(Vmm(process, pid, written), shape)
            stack.push_async_callback(lambda: shielded(machine.close()))
            await machine.pick_up()
        except OSError as error:
            raise MachineGoneError(f"cannot take over machine {shape.machine}: {error}") from error
        yield machine


def _found(shape: Shape) -> tuple[int, Callable[[], bool]]:
    """The process, and whether it is the one still. Raises ProcessLookupError."""
    jailed = record.read(shape.around.directory)
    if jailed is not None:
        if not jailed.runs:
            raise ProcessLookupError(f"process {jailed.pid} has ended")
        return jailed.pid, lambda: jailed.runs
    found = owner.processes_of(shape.machine)
    if len(found) != 1:
        raise ProcessLookupError(f"processes {found} are called after machine {shape.machine}")
    return found[0], lambda: found[0] in owner.processes_of(shape.machine)


async def _plan(shape: Shape, how: Start, inherited: ExitStack) -> Plan:
    """What QEMU is told, with all it inherits open."""
    directory = shape.around.directory
    agent = inherited.enter_context(sockets.listening(directory, sockets.AGENT))
    monitor = inherited.enter_context(sockets.listening(directory, sockets.MONITOR))
    state_fd = inherited.enter_context(sockets.opened(how.state)) if how.state is not None else None
    return Plan(
        spec=shape.spec,
        machine=shape.machine,
        accelerator=how.accelerator,
        memory=shape.mapping.opened,
        layers=shape.layers,
        agent_fd=agent.fileno(),
        monitor_fd=monitor.fileno(),
        state_fd=state_fd,
        tap_fd=await _open_tap(shape.around.slot, inherited),
        tsc_khz=how.tsc_khz,
        stopped=how.stopped,
    )


async def _open_tap(slot: Slot | None, inherited: ExitStack) -> int | None:
    if slot is None:
        return None
    fd = await slot.open_tap()
    inherited.callback(os.close, fd)
    return fd


async def _spawned(
    argv: list[str], fds: list[int], detached: Path | None, stack: AsyncExitStack
) -> tuple[Process, Outputs]:
    """`detached` is the directory of a machine that may outlive this process: its outputs are there."""
    with ExitStack() as inherited:
        stdout, stderr, found = PIPE, PIPE, None
        if detached is not None:
            stdout, stderr = inherited.enter_context(outputs.named(detached))
            found = await stack.enter_async_context(outputs.found(detached))
        starting = spawn(
            argv,
            stdout=stdout,
            stderr=stderr,
            pass_fds=fds,
            grace=0,
            hint=host.HINT,
            detached=detached is not None,
        )
        try:
            process = await stack.enter_async_context(starting)
        except ProcessError as error:
            raise HostError(str(error), hint=error.hint) from error
    return process, found or outputs.piped(process)


async def _jailed(process: Process, room: BubbleRoom, written: Outputs) -> int:
    """QEMU's own number. Raises HostError, with the last words of what was to start it."""
    try:
        return await room.pid_of(process.pid)
    except HostError as error:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                words = (await written.streams[1].read(COMPLAINT_BYTES)).decode(errors="replace").strip()
                raise HostError(f"cannot start a machine in its jail: {words or error}", hint=error.hint) from error
        raise
