"""What the rows of the lab are measured with: two snapshots that both sides restore, and drivers of each kind."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import bare_firecracker as bare
from firebrick import machine
from firebrick.machine import Firecracker, FirecrackerSettings, MachineSpec, Snapshot
from firebrick.machine.jail.jailer import Jailer
from firebrick.machine.network.commands import NAMESPACES
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.pager import serving
from firebrick.machine.seat import Seats
from firebrick.machine.spec import Network
from lab.ground import Ground

MEMORY_MIB: Final = 128
SCRATCH_MIB: Final = 64
SLOTS: Final = 4
DEADLINE_S: Final = 120.0
FIRST_COMMAND: Final = ("cat", "/proc/uptime")


def say(text: str) -> None:
    """What goes on, for whoever waits."""
    sys.stderr.write(f"bench.lab: {time.monotonic():6.1f} s: {text}\n")


@dataclass(frozen=True, slots=True)
class Place:
    """`plain` is a snapshot of a machine without a network, `linked` of one that has a tap. `open` has no jail, `paged` none either, and a page server that has the
    list of the first machine's pages;
    `jailed` has both a jail and networks from `pool`."""

    home: Path
    setup: bare.Setup
    plain: Snapshot
    linked: Snapshot
    open: Firecracker
    paged: Firecracker
    jailed: Firecracker
    pool: SlotPool

    async def settled(self, held: int = 0) -> None:
        """Wait until the pool is as it was before a slot was taken, `held` others still being in use, and the used one removed: that work is not to be
        in the next measurement."""
        await self.pool.full()
        async with asyncio.timeout(DEADLINE_S):
            while len(list(NAMESPACES.glob("fb*"))) > SLOTS + held:  # noqa: ASYNC110 - the pool does not say
                await asyncio.sleep(0.05)

    def fresh(self, kind: str) -> Path:
        """An empty directory, on the file system all machines are on."""
        return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.home))


@asynccontextmanager
async def made(ground: Ground) -> AsyncIterator[Place]:
    """All of it, in a temporary directory that is on a disk."""
    home = Path(tempfile.mkdtemp(prefix="firebrick-bench-", dir="/var/tmp"))
    try:
        async with AsyncExitStack() as stack:
            yield await _make(_brought(ground, home), home, stack)
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _make(ground: Ground, home: Path, stack: AsyncExitStack) -> Place:
    settings = FirecrackerSettings(binary=str(ground.firecracker))
    seats = Seats()
    pool = await stack.enter_async_context(SlotPool(seats, HostNetwork(upstreams=()), size=SLOTS))
    rooms = Jailer(ground.firecracker, ground.jailer)
    open_ = Firecracker(home / "cache", settings)
    jailed = Firecracker(home / "cache", settings, rooms=rooms, seats=seats, network=pool)
    spec = MachineSpec(
        kernel=ground.kernel,
        initrd=ground.initrd,
        root=ground.root,
        kernel_args=ground.kernel_args,
        memory_mib=MEMORY_MIB,
        scratch_mib=SCRATCH_MIB,
    )
    plain = await _taken(spec, open_, home, "plain")
    linked = await _taken(dataclasses.replace(spec, network=Network.NAMESPACE), jailed, home, "linked")
    setup = bare.Setup(
        firecracker=ground.firecracker,
        kernel=ground.kernel,
        initrd=ground.initrd,
        root=ground.root,
        scratch=plain.path / "scratch.img",
        memory=MEMORY_MIB,
        kernel_args=ground.kernel_args,
    )
    return Place(
        home=home,
        setup=setup,
        plain=plain,
        linked=linked,
        open=open_,
        paged=Firecracker(home / "cache", settings, pager=serving, prefetch=True),
        jailed=jailed,
        pool=pool,
    )


async def _taken(spec: MachineSpec, driver: Firecracker, home: Path, name: str) -> Snapshot:
    """Of a machine that has booted and run one command, and is gone."""
    async with machine.launch(spec, driver, home=home, deadline=DEADLINE_S) as source:
        await source.run(FIRST_COMMAND, check=True)
        return await source.snapshot(home / name)


def _brought(ground: Ground, home: Path) -> Ground:
    """The root image is on the file system machines are on, as a production host has it: a room links it, and mounts nothing."""
    root = home / ground.root.name
    shutil.copy(ground.root, root)
    root.chmod(0o444)
    return dataclasses.replace(ground, root=root)
