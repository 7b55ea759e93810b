"""What a machine has around it on the host, for as long as it lives: a directory, and where it has them a network slot and a jail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from firebrick.machine import disk
from firebrick.machine.accel import Accelerator
from firebrick.machine.errors import SpecError
from firebrick.machine.jail import record
from firebrick.machine.jail.bubble import Bubble, BubbleRoom
from firebrick.machine.jail.found import held
from firebrick.machine.network.slot import Networks, Slot
from firebrick.machine.seat import Seats
from firebrick.machine.spec import MachineSpec, Network


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`slot` and `room` are None where the machine has no network namespace, and no jail; `seats` has the seat it is in."""

    directory: Path
    slot: Slot | None
    room: BubbleRoom | None
    seats: Seats | None = None

    def leave(self) -> None:
        """What is around the machine lives on with it, to be found again."""
        if self.room is not None:
            self.room.leave()
            if self.room.seat is not None and self.seats is not None:
                self.seats.leave(self.room.seat)

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
        if detached and spec.network is Network.NAMESPACE:
            raise SpecError(
                "cannot make a machine that outlives its process in a network namespace: that ends with the process that made it",
                hint="Start it without `detached`, or without a network.",
            )
        async with AsyncExitStack() as stack:
            slot = await stack.enter_async_context(self._slot(spec, directory))
            room = await self._room(stack, spec, directory, slot, detached=detached)
            if room is not None:
                _furnish(room, spec, accelerator)
            yield Surroundings(directory, slot, room, self.seats)

    @asynccontextmanager
    async def found(self, directory: Path) -> AsyncIterator[Surroundings]:
        """Those of a machine another process has left. Raises SpecError where the driver's rooms are not of its kind, MachineGoneError, and
        AdoptionError where somebody holds its seat."""
        jailed = record.read(directory)
        if (jailed is None) != (self.rooms is None):
            has, hint = ("it has none", "without") if jailed is None else ("it lives in one", "with")
            raise SpecError(
                f"cannot take over the machine in {directory} {'with' if jailed is None else 'without'} a jail: {has}",
                hint=f"Make the driver {hint} rooms, as the machine's was.",
            )
        async with AsyncExitStack() as stack:
            room = None
            if jailed is not None and self.rooms is not None:
                seat = await held(stack, directory, jailed, self.seats)
                room = await stack.enter_async_context(self.rooms.find(directory, seat))
            yield Surroundings(directory, None, room, self.seats)

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

    async def _room(
        self, stack: AsyncExitStack, spec: MachineSpec, directory: Path, slot: Slot | None, *, detached: bool
    ) -> BubbleRoom | None:
        """The jail of a machine, in the seat of its slot where it has one."""
        if self.rooms is None:
            return None
        if spec.network is Network.USER:
            raise SpecError(
                "cannot make the machine: a jail has no user network, which would reach what listens on the host",
                hint="Ask for no network, or for a namespace.",
            )
        seat = slot.seat if slot is not None else stack.enter_context(self.seats.take(directory))
        return await stack.enter_async_context(self.rooms.open(spec, directory, seat, detached=detached))


def _furnish(room: BubbleRoom, spec: MachineSpec, accelerator: Accelerator) -> None:
    """Let the machine's QEMU see what it needs from its start to its end."""
    if spec.root is not None:
        room.show(spec.root)
    for drive in spec.drives:
        room.show(drive.path) if drive.read_only else room.lend(drive.path)
    if accelerator is Accelerator.KVM:
        room.show_kvm()
