"""A process that owns a machine until it is killed: `python -m tests.conformance.owner_process DRIVER HOME TEMPLATE [STEP]`, where STEP is how
far it goes into a snapshot before it says `ready`; or one that tries to adopt: `... DRIVER HOME DIRECTORY adopt`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from firebrick import machine
from firebrick.machine import AdoptionError, Driver, FirecrackerMachine, Machine, Snapshot
from firebrick.machine.firecracker import config
from firebrick.machine.firecracker.config import SnapshotType
from tests.conformance.drivers import driver_of

IDENTITY = "{ hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; } > /tmp/identity"

HELD = AsyncExitStack()  # never left: this process is killed


async def own(driver: Driver, home: Path, template: Path, step: str) -> None:
    async with machine.restore(Snapshot.load(template), driver, home=home, detached=True) as m:
        await m.run(["sh", "-c", IDENTITY], check=True)
        async with m.exec(["sleep", "1000"], detach=True), m.exec(["sleep", "2000"]):
            await go(m, step)
            print(m.directory, "ready", sep="\n", flush=True)  # noqa: T201
            await asyncio.Event().wait()


async def go(m: Machine, step: str) -> None:
    """Into a snapshot, so far."""
    if step == "paused":
        await m.pause()
    if step in ("quiesced", "sealed"):
        await m.agent.quiesce()
        await m._vm.pause()
    if step == "sealed":
        await (write(m._vm) if isinstance(m._vm, FirecrackerMachine) else m._vm._seal_disk())


async def write(vm: FirecrackerMachine) -> None:
    """All but the last step of a save: it is written, and nobody has taken it."""
    vm._saves += 1
    vm._note()
    await HELD.enter_async_context(vm._vmm.room.saving())
    vm._vmm.room.prepare("save1", (config.STATE, config.MEMORY))
    await vm._send(config.create_snapshot(SnapshotType.FULL, "save1"))


async def take_over(driver: Driver, home: Path, directory: Path) -> None:
    try:
        async with machine.adopt(directory, driver, home=home):
            print("adopted", flush=True)  # noqa: T201
            await asyncio.to_thread(sys.stdin.read)
    except AdoptionError:
        print("refused", flush=True)  # noqa: T201


if __name__ == "__main__":
    home, path, step = Path(sys.argv[2]), Path(sys.argv[3]), (sys.argv[4:] or [""])[0]
    made = driver_of(sys.argv[1], home)
    asyncio.run(take_over(made, home, path) if step == "adopt" else own(made, home, path, step))
