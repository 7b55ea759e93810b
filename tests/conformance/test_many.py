"""Many machines, one after the other and at once, and what that costs whoever runs them."""

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Machine
from tests.conformance.conftest import Way
from tests.conformance.ways import IN_LAB, PACE
from tests.leak import Belongings

CYCLES = 200
FEWEST, LONGEST_S = 15, 20
"""In the lab a machine takes a second, not a tenth of one: without a jail so many, and no more than fit into that time."""
FORKS = 16
SCRIPT = (
    "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1; "
    "cut -d' ' -f1 /proc/uptime; date +%s.%N"
)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def cycle(way: Way) -> None:
    async with way.start() as m:
        assert (await m.run(["true"])).status.ok


@pytest.mark.rooms
async def test_two_hundred_machines_leave_nothing(way: Way, record_property):
    """In the lab fewer of those without a jail: see LONGEST_S."""
    in_brief = IN_LAB and way.driver == "firecracker"
    for _ in range(5):  # what is kept once: caches, modules
        await cycle(way)
    gc.collect()
    before, files, memory = Belongings.now(), open_files(), resident()
    tasks = asyncio.all_tasks()
    began, done = time.monotonic(), 0
    while done < CYCLES and not (in_brief and done >= FEWEST and time.monotonic() - began > LONGEST_S):
        await cycle(way)
        done += 1
        if way.driver == "fake":
            made = way.made
            made.machines.clear()
    record_property("cycles", done)
    gc.collect()
    assert Belongings.settled_since(before) == ""
    assert open_files() <= files
    assert resident() - memory < 24 << 20
    assert asyncio.all_tasks() - tasks == set()
    assert list((way.home / "machines").iterdir()) == []


async def facts(m: Machine) -> list[str]:
    return (await m.run(["sh", "-c", SCRIPT], check=True, timeout=60 * PACE)).stdout.decode().splitlines()


@pytest.mark.real
async def test_sixteen_forks_of_one_instant_are_sixteen_machines(m: Machine):
    """Nothing that tells machines apart is shared, and their time is neither that of the fork nor before it."""
    began = time.time()
    source = await facts(m)
    async with m.forks(FORKS) as copies:
        made = time.time()
        found = await asyncio.gather(*(facts(copy) for copy in copies))
        for what in range(4):
            assert len({said[what] for said in (source, *found)}) == FORKS + 1
        assert len({copy.identity.entropy for copy in (m, *copies)}) == FORKS + 1
        for said in found:
            assert float(source[4]) <= float(said[4]) < float(source[4]) + 5 + (time.time() - began)
            assert made - 5 < float(said[5]) < time.time() + 2


@pytest.mark.real
async def test_a_machine_that_works_hard_is_paused_and_goes_on(m: Machine):
    work = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; done & while :; do head -c 65536 /dev/zero; done"
    async with m.exec(["sh", "-c", work]) as process:
        process.stdout.discard()
        for _ in range(5):
            await asyncio.sleep(0.1)
            async with asyncio.timeout(20 * PACE):
                await m.pause()
                await m.resume()
        first = int(await m.files.read("/dev/shm/count") or 0)
        async with asyncio.timeout(20 * PACE):
            while int(await m.files.read("/dev/shm/count") or 0) <= first:
                await asyncio.sleep(0.05)
    assert (await m.run(["true"])).status.ok


@pytest.mark.real
async def test_what_was_written_and_synced_is_whole_in_a_snapshot_taken_meanwhile(m: Machine, tmp_path: Path):
    """Files of known contents, their list growing: each file that is listed is whole, in the copy and in the source."""
    writes = (
        "mkdir /tmp/w; i=0; while :; do i=$((i+1)); head -c 20000 /dev/urandom > /tmp/w/$i; "
        "(cd /tmp/w; md5sum $i) >> /tmp/list; echo $i; done"
    )
    check = "cd /tmp/w && n=0 && while read sum name; do set -- $(md5sum < $name) && [ $1 = $sum ] && n=$((n+1)) || exit 1; done < /tmp/list; echo $n"
    async with m.exec(["sh", "-c", writes]) as process:
        assert await process.stdout.read()
        process.stdout.discard()
        taken = await m.snapshot(tmp_path / "snap")
    async with machine.restore(taken, m.driver, home=m.directory.parent.parent) as copy:
        await copy.run(["sh", "-c", "pkill -f urandom; pkill head; true"])
        await copy.run(["sh", "-c", "sed -i '$d' /tmp/list; sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)
        assert int((await copy.run(["sh", "-c", check], check=True, timeout=60 * PACE)).stdout) >= 0
    assert (await m.run(["sh", "-c", check], timeout=60 * PACE)).stdout
