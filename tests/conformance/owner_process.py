"""A process that owns a machine until it is killed: `python -m tests.conformance.owner_process HOME TEMPLATE [STEP]`, where STEP is how far
it goes into a snapshot before it says `ready`; or one that tries to adopt: `... HOME DIRECTORY adopt`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from firebrick import machine
from firebrick.machine import AdoptionError, Machine, Snapshot

IDENTITY = "{ hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; } > /tmp/identity"


async def own(home: Path, template: Path, step: str) -> None:
    async with machine.restore(Snapshot.load(template), home=home, detached=True) as m:
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
        await m._vm._seal_disk()


async def take_over(home: Path, directory: Path) -> None:
    try:
        async with machine.adopt(directory, home=home):
            print("adopted", flush=True)  # noqa: T201
            await asyncio.to_thread(sys.stdin.read)
    except AdoptionError:
        print("refused", flush=True)  # noqa: T201


if __name__ == "__main__":
    home, path, step = Path(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or [""])[0]
    asyncio.run(take_over(home, path) if step == "adopt" else own(home, path, step))
