"""What tests make real machines with: kernel and root image of the user's home, and a template to start from."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.home import Home
from firebrick.image import ImageStore
from firebrick.machine import MachineSpec, Snapshot
from lab.ground import Ground

MEMORY_MIB = 256
# All of its memory is written into each snapshot, and one test fills the disk.
FOR_FIRECRACKER = {"memory_mib": 128, "scratch_mib": 512}


@dataclass(frozen=True)
class Workshop:
    """What machines are made with: `home` for their directories, `images` is where kernel and root image come from."""

    home: Path
    images: Home

    async def spec(self, **changes) -> MachineSpec:
        store = ImageStore(self.images)
        kernel, image = await store.ensure_kernel("debian"), store.find_image("base")
        assert image is not None, "the image `base` is not there: run `make setup` first"
        given = {"kernel": kernel.path, "initrd": kernel.initrd, "root": image.path, "kernel_args": kernel.args}
        return MachineSpec(**given | {"memory_mib": MEMORY_MIB} | changes)

    def firecracker_spec(self, **changes) -> MachineSpec:
        """In the lab: its ground says where kernel and root image are. Raises NoGroundError elsewhere."""
        ground = Ground.find()
        given = {"kernel": ground.kernel, "initrd": ground.initrd, "root": ground.root}
        return MachineSpec(**given | FOR_FIRECRACKER | {"kernel_args": ground.kernel_args} | changes)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(home=tmp_path_factory.mktemp("home"), images=Home.find())


@pytest.fixture(scope="session")
def template(workshop: Workshop) -> Snapshot:
    """A booted QEMU machine, saved. Made once, in a thread with an event loop of its own: tests have theirs."""

    async def make() -> Snapshot:
        async with machine.launch(await workshop.spec(), "qemu", home=workshop.home) as m:
            return await m.snapshot(workshop.home / "template")

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, make()).result()
