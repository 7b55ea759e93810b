"""What a machine has around it on the host, for as long as it lives: a directory, and where it has them a network slot and a jail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from firebrick.machine import disk
from firebrick.machine.accel import Accelerator
from firebrick.machine.errors import SpecError
from firebrick.machine.jail.bubble import Bubble, BubbleRoom
from firebrick.machine.network.slot import Networks, Slot
from firebrick.machine.seat import Seats
from firebrick.machine.spec import MachineSpec, Network


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`slot` and `room` are None where the machine has no network namespace, and no jail."""

    directory: Path
    slot: Slot | None
    room: BubbleRoom | None

    def new_layer(self, layers: Sequence[Path], spec: MachineSpec) -> Path:
        """An empty layer upon the others, for the machine to write to."""
        layer = disk.add_layer(layers, self.directory, spec.scratch_mib)
        if self.room is not None:
            self.room.own(layer.name)
        return layer


@dataclass(frozen=True, slots=True)
class Hall:
    """What makes surroundings: `rooms` where machines are jailed, in seats of `seats`; `network` where they can have a namespace."""

    rooms: Bubble | None
    seats: Seats
    network: Networks | None

    @asynccontextmanager
    async def around(
        self, spec: MachineSpec, directory: Path, accelerator: Accelerator, *, detached: bool
    ) -> AsyncIterator[Surroundings]:
        """They last as long as the context. Raises SpecError for what cannot be had together, HostError where the host lacks something."""
        if detached and (self.rooms is not None or spec.network is Network.NAMESPACE):
            what = "a jail" if self.rooms is not None else "a network namespace"
            raise SpecError(
                f"cannot make a machine that outlives its process in {what}: that ends with the process that made it",
                hint="Start it without `detached`, or with a driver that has no rooms and no network.",
            )
        async with self._slot(spec, directory) as slot, self._room(spec, directory, accelerator, slot) as room:
            yield Surroundings(directory, slot, room)

    @asynccontextmanager
    async def _slot(self, spec: MachineSpec, directory: Path) -> AsyncIterator[Slot | None]:
        if spec.network is not Network.NAMESPACE:
            yield None
            return
        if self.network is None:
            raise SpecError(
                "cannot give the machine a network namespace: the driver has none to give",
                hint="Make the driver as Qemu(cache, network=pool), with an open SlotPool.",
            )
        async with self.network.slot(spec.policy, directory) as slot:
            if spec.network_rate is not None:
                await slot.limit(spec.network_rate)
            yield slot

    @asynccontextmanager
    async def _room(
        self, spec: MachineSpec, directory: Path, accelerator: Accelerator, slot: Slot | None
    ) -> AsyncIterator[BubbleRoom | None]:
        """The jail of a machine, with what every start needs in it, in the seat of its slot where it has one."""
        if self.rooms is None:
            yield None
            return
        if spec.network is Network.USER:
            raise SpecError(
                "cannot make the machine: a jail has no user network, which would reach what listens on the host",
                hint="Ask for no network, or for a namespace.",
            )
        with nullcontext(slot.seat) if slot is not None else self.seats.take(directory) as seat:
            async with self.rooms.open(spec, directory, seat) as room:
                _furnish(room, spec, accelerator)
                yield room


def _furnish(room: BubbleRoom, spec: MachineSpec, accelerator: Accelerator) -> None:
    """Let the machine's QEMU see what it needs from its start to its end."""
    if spec.root is not None:
        room.show(spec.root)
    for drive in spec.drives:
        room.show(drive.path) if drive.read_only else room.lend(drive.path)
    if accelerator is Accelerator.KVM:
        room.show_kvm()
