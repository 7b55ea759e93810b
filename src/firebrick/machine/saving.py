"""Saving a machine that runs: its agent freezes and syncs, its processors stop, the driver saves, and all goes on as before."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from firebrick.guest.client import Agent, Identity
from firebrick.guest.errors import ChannelError
from firebrick.machine import chain
from firebrick.machine.driver import VirtualMachine
from firebrick.machine.errors import MachineError, MachineGoneError, SnapshotError
from firebrick.machine.meeting import rejoin
from firebrick.machine.snapshot import Snapshot
from firebrick.task import shielded


@dataclass(frozen=True, slots=True)
class Live:
    """A virtual machine, its agent, and who it is: it is greeted by that name again where a save costs the connection."""

    vm: VirtualMachine
    agent: Agent
    identity: Identity

    async def save(self, target: Path, *, diff: bool, paused: bool) -> None:
        """Fill the empty directory `target`. A machine that is `paused` runs for a moment meanwhile, its user processes frozen.

        Raises ChannelError, and what the driver does; the machine is as it was then too, or its connection is lost."""
        try:
            await self._save(target, diff=diff, paused=paused)
        except BaseException:
            with contextlib.suppress(MachineError):  # what went wrong first is what is told
                await shielded(self._settle(paused=paused))
            raise
        await shielded(self._settle(paused=paused))

    async def thaw(self) -> None:
        """Processors first: the agent cannot answer without. Does not raise: where the machine has ended, its connection is lost and says so."""
        try:
            await self.vm.resume()
            if self.agent.parted:
                await rejoin(self.vm, self.agent, self.identity)
            await self.agent.resume()
        except (MachineGoneError, ChannelError, OSError, TimeoutError) as error:  # it has ended: the state says so
            self.agent.lose(error)

    async def _save(self, target: Path, *, diff: bool, paused: bool) -> None:
        if paused:
            await self.vm.resume()
        await self.agent.quiesce()
        await self.vm.pause()
        if self.vm.parts:
            await self.agent.part()
        await self.vm.save(target, diff=diff)

    async def _settle(self, *, paused: bool) -> None:
        """After a save, as it was before it. A machine that was paused stays so, unless its agent has to be met again."""
        parted = self.agent.parted
        try:
            if not paused or parted:
                await self.thaw()
            if paused:
                await self.vm.pause()
        except MachineGoneError:  # the state says so
            return
        except MachineError as error:  # it is not as it was: nobody is to wait for what its agent says
            self.agent.lose(error)
            raise


def check_base(machine: str, base: Snapshot, possible: Snapshot | None) -> None:
    """See that the machine of this id can be saved as a difference to `base`, where `possible` is what it knows the changes since.

    Raises SnapshotError."""
    refused = f"cannot save machine {machine} as a difference to {base.path}"
    if possible is None or possible.digest != base.digest:
        why = (
            "what changed in its memory since is not known"
            if possible is None
            else f"only what changed since {possible.path} is known"
        )
        raise SnapshotError(f"{refused}: {why}", hint="Take a full snapshot.")
    if len(base.chain) >= chain.LONGEST:
        raise SnapshotError(
            f"{refused}: {chain.LONGEST} snapshots build on each other already",
            hint="Take a full snapshot, or make the base a full one with `flatten`.",
        )
