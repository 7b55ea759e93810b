"""Real machines whose memory comes from the page server, with a jail and without."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import ExitCause, Firecracker, FirecrackerSettings, MachineSpec, Snapshot
from firebrick.machine.firecracker import pages
from firebrick.machine.jail import record
from firebrick.machine.jail.jailer import Jailer
from firebrick.machine.pager import PROGRAM, is_list, serving
from firebrick.machine.seat import Seats
from lab.ground import Ground
from tests.lab.conftest import Evidence
from tests.lab.test_jail import left_of

DEADLINE_S = 120.0


def driver_of(ground: Ground, home: Path, *, jailed: bool) -> Firecracker:
    settings = FirecrackerSettings(binary=str(ground.firecracker))
    rooms = Jailer(ground.firecracker, ground.jailer) if jailed else None
    seats = Seats() if jailed else None
    return Firecracker(home / "cache", settings, rooms=rooms, seats=seats, pager=serving, prefetch=True)


def pager() -> int:
    """The page server that runs."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    [pid] = [pid for pid in pids if str(PROGRAM) in words(pid)]
    return pid


def words(pid: int) -> list[str]:
    """Of its command line; none of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


async def test_machines_have_their_memory_from_page_servers(
    ground: Ground, tmp_path: Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "RECORD_S", 0.5)
    spec = MachineSpec(
        kernel=ground.kernel,
        initrd=ground.initrd,
        root=ground.root,
        kernel_args=ground.kernel_args,
        memory_mib=128,
        scratch_mib=64,
    )
    drivers = [driver_of(ground, tmp_path, jailed=jailed) for jailed in (False, True)]
    async with machine.launch(spec, drivers[0], home=tmp_path, deadline=DEADLINE_S) as m:
        await m.run(["sh", "-c", "echo kept > /dev/shm/file"], check=True)
        taken = await m.snapshot(tmp_path / "taken")
    for driver in drivers:
        await restored(driver, tmp_path, taken, evidence, jailed=driver is drivers[1])


async def restored(driver: Firecracker, home: Path, taken: Snapshot, evidence: Evidence, *, jailed: bool) -> None:
    """Once with a list to be made, once with the list."""
    listed = taken.path / pages.LIST
    listed.unlink(missing_ok=True)
    async with machine.restore(taken, driver, home=home, deadline=DEADLINE_S) as m:
        evidence.add("console.txt", m.console)
        assert (await m.run(["cat", "/dev/shm/file"], check=True)).stdout == b"kept\n"
        assert "--record" in words(pager())
        async with asyncio.timeout(20):
            while not listed.exists():
                await asyncio.sleep(0.05)
        assert is_list(listed.read_bytes())
        if jailed:
            check_jail(m.directory, pager())
        async with m.fork() as fork:
            assert (await fork.run(["cat", "/dev/shm/file"], check=True)).stdout == b"kept\n"
    before = listed.read_bytes()
    seat = None
    async with machine.restore(taken, driver, home=home, deadline=DEADLINE_S) as m:
        evidence.add("console-2.txt", m.console)
        pid = pager()
        assert "--prefetch" in words(pid)
        assert "--record" not in words(pid)
        assert (await m.run(["cat", "/dev/shm/file"], check=True)).stdout == b"kept\n"
        kept = record.read(m.directory)
        seat = kept.seat if kept is not None else None
        os.kill(pid, signal.SIGKILL)
        end = await asyncio.wait_for(m.wait(), 20)
        assert end.cause is ExitCause.CRASHED
        assert end.message == "it was ended: its page server ended: the page server was killed by signal 9"
    assert listed.read_bytes() == before
    assert seat is None or left_of(seat) == []


def check_jail(directory: Path, pid: int) -> None:
    """The page server is the seat's, and what it uses is the machine's."""
    kept = record.read(directory)
    assert kept is not None
    assert kept.group is not None
    status = Path(f"/proc/{pid}/status").read_text()
    [uids] = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
    assert uids == [str(kept.uid)] * 4
    assert str(pid) in (Path(kept.group) / "cgroup.procs").read_text().split()
