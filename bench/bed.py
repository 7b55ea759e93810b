"""What all rows are measured on: the same kernel, memory and accelerator for both sides, and directories of their own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import floor
from firebrick.home import Home
from firebrick.image.store import ImageStore
from firebrick.machine import MachineSpec, tsc
from firebrick.machine.accel import Acceleration, Accelerator
from firebrick.machine.host import qemu_version
from tests.place import make_home

MEMORY_MIB = 256
LARGE_MEMORY_MIB = 1024
# What a guest needs to have a port, of the modules the product loads.
_PORT_MODULES = ("virtio_ring.ko", "virtio.ko", "virtio_mmio.ko", "virtio_console.ko")


@dataclass(frozen=True, slots=True)
class Bed:
    """`spec` is what the product's machines are made from, `bare` what the floor's are; `home` is a home of the benchmark's own."""

    home: Home
    spec: MachineSpec
    bare: floor.Setup
    accelerator: Accelerator

    def larger(self) -> Bed:
        """The same with room for a file of 256 MB in memory."""
        spec = dataclasses.replace(self.spec, memory_mib=LARGE_MEMORY_MIB)
        return dataclasses.replace(self, spec=spec, bare=dataclasses.replace(self.bare, memory=LARGE_MEMORY_MIB))


@contextlib.contextmanager
def made() -> Iterator[Bed]:
    """A bed in a temporary directory, with the kernel and the images of the user's home."""
    with tempfile.TemporaryDirectory(prefix="firebrick-bench-") as directory:
        yield asyncio.run(_make(Path(directory)))


async def _make(directory: Path) -> Bed:
    home = make_home(directory / "home")
    store = ImageStore(home)
    kernel, image = await store.ensure_kernel(), await store.ensure_image("base")
    accelerator = (await Acceleration(home.cache, await qemu_version(home.cache)).choose()).accelerator
    modules = [kernel.elf.parent / "modules" / name for name in kernel.manifest.modules if name in _PORT_MODULES]
    bare = directory / "floor"
    bare.mkdir()
    floor.build_initramfs(modules, bare / "initramfs")
    emulated = accelerator is Accelerator.TCG
    setup = floor.Setup(
        kernel=kernel.path,
        initramfs=bare / "initramfs",
        accelerator="tcg,thread=multi" if emulated else "kvm",
        directory=bare,
        memory=MEMORY_MIB,
        # Without it one emulated boot in six hangs on a busy host: the kernel fails to measure its own clock.
        kernel_args=(f"tsc_early_khz={tsc.rate_khz()}",) if emulated and tsc.rate_khz() else (),
    )
    spec = MachineSpec(
        kernel=kernel.path, initrd=kernel.initrd, kernel_args=kernel.args, root=image.path, memory_mib=MEMORY_MIB
    )
    return Bed(home, spec, setup, accelerator)
