"""Rows about machines: how long until one answers, and what it costs while it does nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

from bench import floor
from bench.bed import Bed
from bench.row import Row, compared
from firebrick import machine
from firebrick.machine import Machine, Snapshot

FIRST_COMMAND = ("cat", "/proc/uptime")
# Forks of both sides run the same program: what an image's own costs to link and to translate is no matter of the product.
BUSYBOX = "/usr/local/bin/busybox"
FIRST_OF_FORK = (BUSYBOX, *FIRST_COMMAND)
_BOOTS = 5
_FORKS = 9
_TOGETHER = 10
_TOGETHER_ROUNDS = 3
_IDLE_S = 5.0
_SETTLE_S = 1.0
_IDLE_LIMIT_PERCENT = 1.0


async def boot(bed: Bed) -> list[Row]:
    bare, own = [], []
    for _ in range(_BOOTS + 1):
        with floor.booted(bed.bare) as machine_:
            bare.append(time.monotonic() - machine_.started)
        started = time.monotonic()
        async with machine.launch(bed.spec, home=bed.home.root) as ours:
            await ours.run(FIRST_COMMAND, check=True)
            own.append(time.monotonic() - started)
    # The first of each fills the page cache, and makes the empty scratch disk.
    return [compared("cold boot to first output", "s", bare[1:], own[1:], 1.5)]


@asynccontextmanager
async def snapshot(bed: Bed, command: Sequence[str] = FIRST_OF_FORK) -> AsyncIterator[Snapshot]:
    """Of a machine that has booted and run one command, and is gone."""
    directory = bed.home.root / "bench-snapshot"
    try:
        async with machine.launch(bed.spec, home=bed.home.root) as source:
            await source.files.write(BUSYBOX, floor.BUSYBOX.read_bytes(), mode=0o755)
            await source.run(command, check=True)
            taken = await source.snapshot(directory)
        yield taken
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def started_fork(stack: AsyncExitStack, taken: Snapshot, home: Path) -> tuple[Machine, float]:
    """A fork that has answered, and how long that took."""
    started = time.monotonic()
    fork = await stack.enter_async_context(machine.restore(taken, home=home))
    await fork.run(FIRST_OF_FORK, check=True)
    return fork, time.monotonic() - started


def started_bare(stack: ExitStack, template: floor.Template) -> tuple[floor.Bare, float]:
    fork = stack.enter_context(template.forked())
    fork.command(floor.FIRST_COMMAND)
    return fork, time.monotonic() - fork.started


async def forks(bed: Bed) -> list[Row]:
    """All about forks, of one template each."""
    async with snapshot(bed) as taken:
        with floor.template(bed.bare) as template:
            return [await _one_fork(bed, taken, template), *await _many_forks(bed, taken, template)]


async def fork_times(bed: Bed, taken: Snapshot, rounds: int) -> list[float]:
    """So many forks of the product, one after the other, each to its first output."""
    took = []
    for _ in range(rounds):
        async with AsyncExitStack() as stack:
            took.append((await started_fork(stack, taken, bed.home.root))[1])
    return took


async def _one_fork(bed: Bed, taken: Snapshot, template: floor.Template) -> Row:
    bare, own = [], []
    for _ in range(_FORKS + 1):
        with ExitStack() as sync_stack:
            bare.append(started_bare(sync_stack, template)[1])
        own += await fork_times(bed, taken, 1)
    return compared("fork to first output", "s", bare[1:], own[1:], 1.5)


async def _many_forks(bed: Bed, taken: Snapshot, template: floor.Template) -> list[Row]:
    firsts, tenths = [], []
    shares: list[float] = []
    own_memory: list[float] = []
    for _ in range(_TOGETHER_ROUNDS):
        async with AsyncExitStack() as stack:
            made = [await started_fork(stack, taken, bed.home.root) for _ in range(_TOGETHER)]
            firsts.append(made[0][1])
            tenths.append(made[-1][1])
            if not shares:
                pids = [pid for fork, _ in made if (pid := fork.pid) is not None]
                shares = await idle_shares(pids)
                own_memory = [own_mib(pid) for pid in pids]
    with ExitStack() as sync_stack:
        bare = [started_bare(sync_stack, template)[0].pid for _ in range(_TOGETHER)]
        await asyncio.sleep(_SETTLE_S)
        bare_memory = [own_mib(pid) for pid in bare]
    return [
        compared("tenth fork against the first", "s", firsts, tenths, 1.3),
        Row(name="processor of an idle fork", unit="%", floor=_IDLE_LIMIT_PERCENT, value=max(shares), limit=1.0),
        compared("memory of an idle fork", "MiB", bare_memory, own_memory, 1.2),
    ]


async def idle_shares(pids: Sequence[int]) -> list[float]:
    """The percentage of a core each process uses when nothing is asked of it."""
    await asyncio.sleep(_SETTLE_S)
    before = [cpu_seconds(pid) for pid in pids]
    await asyncio.sleep(_IDLE_S)
    return [100 * (cpu_seconds(pid) - earlier) / _IDLE_S for pid, earlier in zip(pids, before, strict=True)]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_mib(pid: int) -> float:
    """Memory the process shares with nobody."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            total += int(value.split()[0])
    return total / 1024
