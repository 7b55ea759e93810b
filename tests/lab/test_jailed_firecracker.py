"""Real guests in real Firecrackers in real jails: all a machine can do, it can do jailed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Drive, ExitCause, Firecracker, FirecrackerSettings, MachineSpec, Snapshot
from firebrick.machine.jail import record
from firebrick.machine.jail.jailer import OVERHEAD_MIB, Jailer
from firebrick.machine.seat import SEATS, Seats
from lab.ground import Ground
from tests.lab.conftest import Evidence
from tests.lab.test_jail import left_of

DEADLINE_S = 120.0


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jailed")


@pytest.fixture(scope="session")
def driver(ground: Ground, home: Path) -> Firecracker:
    rooms = Jailer(ground.firecracker, ground.jailer)
    settings = FirecrackerSettings(binary=str(ground.firecracker))
    return Firecracker(home / "cache", settings, rooms=rooms, seats=Seats())


def spec_of(ground: Ground, **changes) -> MachineSpec:
    given = {"kernel": ground.kernel, "initrd": ground.initrd, "root": ground.root, "kernel_args": ground.kernel_args}
    return MachineSpec(**given | {"memory_mib": 128, "scratch_mib": 64} | changes)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


AS_THE_VMM = """
import os, sys
os.chroot(sys.argv[1]); os.chdir("/"); os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
for directory, _, _ in os.walk("/"):
    try:
        open(directory + "/new", "wb").close()
        print(directory)
    except OSError:
        pass
"""


def made_by_the_vmm(pid: int, uid: int) -> list[str]:
    """The directories in which a Firecracker that was taken over can make files."""
    argv = [sys.executable, "-I", "-c", AS_THE_VMM, f"/proc/{pid}/root", str(uid)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


async def test_a_life_in_jail(
    ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    spec = spec_of(ground, drives=(Drive(name="data", path=disk, read_only=False),))
    seats = []
    async with machine.launch(spec, driver, home=home, deadline=DEADLINE_S) as m:
        evidence.add("console.txt", m.console)
        said = status_of(m.pid)
        kept = record.read(m.directory)
        seats.append(kept.seat)
        assert (said["Name"], said["CapEff"], said["NoNewPrivs"], said["Seccomp"]) == (
            *("firecracker", "0" * 16, "1", "2"),
        )
        assert said["Uid"].split() == [str(kept.uid)] * 4
        assert os.readlink(f"/proc/{m.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "it has the host's network"
        threads = [Path(f"/proc/{m.pid}/task/{tid}/status").read_text() for tid in os.listdir(f"/proc/{m.pid}/task")]
        assert all("Seccomp:\t2" in text for text in threads), "each thread has its filter"
        group = Path(kept.group)
        assert m.pid in map(int, (group / "cgroup.procs").read_text().split())
        assert made_by_the_vmm(m.pid, kept.uid) == []
        await m.run(["sh", "-c", "echo x > /dev/disk/by-serial/data; sync; echo kept > /root/file"], check=True)
        taken = await m.snapshot(tmp_path / "snapshot")
        async with machine.restore(taken, driver, home=home, deadline=DEADLINE_S) as a, a.fork() as b:
            evidence.add("console-a.txt", a.console)
            seats += [record.read(x.directory).seat for x in (a, b)]
            assert len(set(seats)) == 3
            for one in (a, b):
                assert made_by_the_vmm(one.pid, record.read(one.directory).uid) == []
                assert (await one.run(["cat", "/root/file"], check=True)).stdout == b"kept\n"
            assert b.pid in map(int, (group.parent / f"fb{seats[2]}" / "cgroup.procs").read_text().split())
        assert (await m.stop()).cause is ExitCause.POWEROFF
    assert [left_of(seat) for seat in seats] == [[]] * 3
    assert disk.read_bytes()[:2] == b"x\n"
    for file in Snapshot.load(taken.path).path.iterdir():
        assert file.stat().st_uid == 0, "nothing of a snapshot belongs to a jail"


async def test_snapshots_one_after_another_do_not_run_into_the_limit_on_memory(
    ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence
) -> None:
    """What is kept of their files counts as the machine's, and fills its group: see `JailerRoom.saving`."""
    async with machine.launch(spec_of(ground), driver, home=home, deadline=DEADLINE_S) as m:
        evidence.add("console.txt", m.console)
        kept = record.read(m.directory)
        group = Path(kept.group)
        for number in range(4):
            before = times_at_the_limit(group)
            await m.snapshot(tmp_path / str(number))
            assert times_at_the_limit(group) - before < 50, "with the limit it is 200 to 800"
            assert int((group / "memory.max").read_text()) == kept.memory == (128 + OVERHEAD_MIB) << 20


def times_at_the_limit(group: Path) -> int:
    return int(dict(line.split() for line in (group / "memory.events").read_text().splitlines())["max"])


async def test_ends_are_told_apart(ground: Ground, driver: Firecracker, home: Path, evidence: Evidence) -> None:
    async with machine.launch(spec_of(ground), driver, home=home, deadline=DEADLINE_S) as m:
        evidence.add("console.txt", m.console)
        os.kill(m.pid, signal.SIGBUS)
        end = await m.wait()
        assert "SIGBUS" in end.message
    async with machine.launch(spec_of(ground), driver, home=home, deadline=DEADLINE_S) as m:
        assert (await m.kill()).cause is ExitCause.KILLED


async def test_a_start_cancelled_at_any_moment_leaves_nothing(ground: Ground, driver: Firecracker, home: Path) -> None:
    async def life() -> None:
        async with machine.launch(spec_of(ground), driver, home=home, deadline=DEADLINE_S):
            await asyncio.sleep(60)

    for step in range(8):
        task = asyncio.create_task(life())
        await asyncio.wait([task], timeout=step * 0.07)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task
        assert list((home / "machines").iterdir()) == []
    assert not [seat for seat in SEATS.iterdir() if seat.read_text().startswith(str(home))]
