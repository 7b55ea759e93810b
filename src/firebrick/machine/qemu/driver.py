"""Machines under QEMU: KVM where it works, else emulated. No privileges are needed, and root puts each into a jail of its own.

QEMU is started with everything it needs in its arguments and inherited descriptors: sockets that listen already, a console on its standard
output, the device state of a fork as an open file. So nothing polls, and between starting a fork and its first answer there is no
conversation with QEMU at all; the monitor is opened when somebody pauses or saves the machine, and to hear how it ended.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from firebrick.machine import disk, host, memory, tsc
from firebrick.machine.accel import Acceleration, Accelerator
from firebrick.machine.command import MACHINE_TYPE, processor
from firebrick.machine.driver import Prepared
from firebrick.machine.errors import SpecError
from firebrick.machine.jail import files
from firebrick.machine.jail.bubble import Bubble
from firebrick.machine.jail.sealed import MAPPED, SealedFiles
from firebrick.machine.network.slot import Networks
from firebrick.machine.qemu import vm
from firebrick.machine.qemu.start import Start, attended, started
from firebrick.machine.qemu.surroundings import Hall, Surroundings
from firebrick.machine.qemu.vm import MEMORY, STATE, QemuMachine, Shape
from firebrick.machine.seat import Seats
from firebrick.machine.spec import MachineSpec


class Qemu:
    """The driver. `cache` keeps what is the same for all machines: empty disks, what the host can do. `accelerator` overrules the choice.

    With `rooms` every machine is jailed, in a seat of `seats`; that needs root. Without, QEMU runs as whoever runs this. `network` gives machines
    their network namespaces, and must be open while they live. No namespace goes with machines that are detached."""

    name = "qemu"

    def __init__(
        self,
        cache: Path,
        *,
        accelerator: Accelerator | None = None,
        rooms: Bubble | None = None,
        seats: Seats | None = None,
        network: Networks | None = None,
    ) -> None:
        self._cache = cache
        self._hall = Hall(rooms, seats or Seats(), network)
        self._sealed = SealedFiles()
        self._forced = accelerator
        self._acceleration: Acceleration | None = None
        self._version = ""

    async def facts(self, spec: MachineSpec) -> Mapping[str, str]:
        accelerator = await self._accelerator()
        facts = {
            "QEMU": self._version,
            "machine type": MACHINE_TYPE,
            "accelerator": accelerator.value,
            "processor": processor(spec, accelerator),
        }
        if accelerator is Accelerator.KVM:
            return facts | {"host processor": host.processor_model(), "host kernel": platform.release()}
        rate = await asyncio.to_thread(tsc.rate_khz)
        return facts | {"clock": f"{round((rate or 0) / 10_000) / 100:.2f} GHz"}

    def patience(self, deadline: float) -> float:
        return deadline if self._acceleration is None else self._acceleration.patience(deadline)

    def answered(self) -> None:
        if self._acceleration is not None:
            self._acceleration.started()

    def stayed_silent(self, seconds: float) -> bool:
        return self._acceleration is not None and self._acceleration.stayed_silent(seconds)

    @asynccontextmanager
    async def boot(self, spec: MachineSpec, directory: Path, *, detached: bool = False) -> AsyncIterator[QemuMachine]:
        _check(spec)
        accelerator = await self._accelerator()
        rate = await asyncio.to_thread(tsc.rate_khz) if accelerator is Accelerator.TCG else None
        base = directory / "scratch.0.raw"
        disk.share(await disk.empty_filesystem(self._cache, spec.scratch_mib), base)
        async with self._hall.around(spec, directory, accelerator, detached=detached) as around:
            if around.room is not None:
                for path in (spec.kernel, spec.initrd):
                    around.room.show(path)
            layers = [base, around.new_layer([base], spec)]
            shape = Shape(spec, vm.Mapping.of(memory.NO_FILE), layers, around)
            async with started(shape, Start(accelerator, detached, tsc_khz=rate)) as machine:
                yield machine

    def restore(
        self, spec: MachineSpec, snapshot: Path, directory: Path, *, detached: bool = False
    ) -> AbstractAsyncContextManager[QemuMachine]:
        return self._restored(spec, snapshot, directory, detached=detached)

    @asynccontextmanager
    async def prepare(self, spec: MachineSpec, snapshot: Path, directory: Path) -> AsyncIterator[Prepared[QemuMachine]]:
        """See Driver: QEMU has loaded all of the machine, and its processors stand still."""
        async with self._restored(spec, snapshot, directory, stopped=True) as machine:
            await machine.loaded()

            async def begin() -> QemuMachine:
                await machine.resume()
                return machine

            yield Prepared(begin, lambda: machine.ended)

    @asynccontextmanager
    async def adopt(self, spec: MachineSpec, directory: Path) -> AsyncIterator[QemuMachine]:
        """See Driver. A jailed machine needs rooms here too; raises SpecError without."""
        mapped = directory / MEMORY
        async with self._hall.found(directory) as around:
            mapping = vm.Mapping.of(memory.NO_FILE)
            if mapped.exists():
                mapping = vm.Mapping(mapped, mapped if around.room is None else MAPPED, mapped)
            async with attended(Shape(spec, mapping, _layers(directory), around)) as machine:
                yield machine

    @asynccontextmanager
    async def _restored(
        self, spec: MachineSpec, snapshot: Path, directory: Path, *, detached: bool = False, stopped: bool = False
    ) -> AsyncIterator[QemuMachine]:
        _check(spec)
        accelerator = await self._accelerator()
        async with AsyncExitStack() as stack:
            around = await stack.enter_async_context(self._hall.around(spec, directory, accelerator, detached=detached))
            layers = _shared(snapshot, around)
            layers.append(around.new_layer(layers, spec))
            shape = Shape(spec, await self._mapping(around, stack), layers, around)
            how = Start(accelerator, detached, state=snapshot / STATE, stopped=stopped)
            yield await stack.enter_async_context(started(shape, how))

    async def _mapping(self, around: Surroundings, stack: AsyncExitStack) -> vm.Mapping:
        """The memory of a machine that is restored: the file itself, or for a jail a copy nobody can write."""
        file = around.directory / MEMORY
        if around.room is None:
            return vm.Mapping.of(file)
        fd = await stack.enter_async_context(self._sealed.open(file))
        return vm.Mapping(Path(f"/proc/self/fd/{fd}"), MAPPED, file, fd)

    async def _accelerator(self) -> Accelerator:
        if not self._version:
            self._version = await host.qemu_version(self._cache)
        if self._forced is not None:
            return self._forced
        if self._acceleration is None:
            self._acceleration = Acceleration(self._cache, self._version)
        return (await self._acceleration.choose()).accelerator


def _check(spec: MachineSpec) -> None:
    for path in (spec.kernel, spec.initrd, spec.root, *(drive.path for drive in spec.drives)):
        if path is not None and not path.exists():
            raise SpecError(
                f"cannot make the machine: {path} does not exist",
                hint="Name a kernel, an initramfs and images that exist.",
            )
    if len({drive.name for drive in spec.drives} | {"root", "scratch"}) != len(spec.drives) + 2:
        raise SpecError(
            "cannot make the machine: two drives have the same name", hint="`root` and `scratch` are taken."
        )


def _shared(snapshot: Path, around: Surroundings) -> list[Path]:
    """Give the machine its own names for the files of the snapshot, so that it does not matter to it when the snapshot is removed."""
    disk.share(snapshot / MEMORY, around.directory / MEMORY)
    share = disk.share if around.room is None else _share_unwritten
    layers = _layers(snapshot)
    for layer in layers:
        share(layer, around.directory / layer.name)
    return [around.directory / layer.name for layer in layers]


def _share_unwritten(source: Path, target: Path) -> None:
    files.check_unwritten(source)
    files.share(source, target)


def _layers(directory: Path) -> list[Path]:
    return sorted(directory.glob("scratch.*"), key=lambda path: int(path.name.split(".")[1]))
