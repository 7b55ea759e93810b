"""The Firecracker driver with real guests: without a jail and without a network, which have tests of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.guest.client import Agent, Identity
from firebrick.machine import (
    Balloon,
    Drive,
    ExitCause,
    Firecracker,
    FirecrackerMachine,
    FirecrackerSettings,
    Machine,
    MachineSpec,
    RateLimit,
    Snapshot,
    SnapshotError,
    SpecError,
)
from firebrick.machine.memory import data_extents
from lab.ground import Ground
from tests.firecracker import tiny
from tests.lab.conftest import Evidence

DEADLINE_S = 120.0


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def driver(ground: Ground, home: Path) -> Firecracker:
    return Firecracker(home / "cache", FirecrackerSettings(binary=str(ground.firecracker)), track_dirty_pages=True)


def spec_of(ground: Ground, **changes) -> MachineSpec:
    given = {"kernel": ground.kernel, "initrd": ground.initrd, "root": ground.root, "kernel_args": ground.kernel_args}
    return MachineSpec(**given | {"memory_mib": 128, "scratch_mib": 64} | changes)


@asynccontextmanager
async def launched(driver: Firecracker, home: Path, spec: MachineSpec, evidence: Evidence) -> AsyncIterator[Machine]:
    async with machine.launch(spec, driver, home=home, deadline=DEADLINE_S) as made:
        watch(made, evidence)
        yield made
    assert not made.directory.exists()


def watch(made: Machine, evidence: Evidence) -> None:
    evidence.add(f"console-{made.id}.txt", made.console)
    evidence.add(f"log-{made.id}.txt", vm_of(made).log)


def vm_of(made: Machine) -> FirecrackerMachine:
    assert isinstance(made.vm, FirecrackerMachine)
    return made.vm


async def said(made: Machine, *argv: str) -> str:
    return (await made.run(argv, check=True)).stdout.decode().strip()


async def test_a_life(ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence) -> None:
    """Boot, run, pause, snapshot under load, restore three at once, fork, stop: one boot for all of it."""
    async with launched(driver, home, spec_of(ground), evidence) as source:
        assert await said(source, "uname", "-s") == "Linux"
        await source.pause()
        await source.resume()
        await source.run(["sh", "-c", "echo kept > /root/file; sync"], check=True)
        async with source.exec(["cat"], stdin=True) as cat:
            await cat.write(b"before")
            assert await cat.stdout.read() == b"before"
            taken = await source.snapshot(tmp_path / "taken")
            await cat.write(b"after")
            assert await cat.stdout.read() == b"after", "a command did not survive a snapshot of its machine"
        await source.run(["sh", "-c", "echo changed > /root/file"], check=True)
        await _check_restored(driver, home, taken, source, evidence)
        async with source.fork() as fork:
            watch(fork, evidence)
            assert await said(fork, "cat", "/root/file") == "changed"
        end = await source.stop(deadline=30)
        assert end.cause is ExitCause.POWEROFF, end


async def _check_restored(
    driver: Firecracker, home: Path, taken: Snapshot, source: Machine, evidence: Evidence
) -> None:
    async with AsyncExitStack() as stack:
        restores = [machine.restore(taken, driver, home=home, deadline=DEADLINE_S) for _ in range(3)]
        clones = await asyncio.gather(*(stack.enter_async_context(clone) for clone in restores))
        for clone in clones:
            watch(clone, evidence)
        assert {await said(clone, "cat", "/root/file") for clone in clones} == {"kept"}
        for name in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/etc/hostname"):
            assert len({await said(made, "cat", name) for made in (source, *clones)}) == 4, name
        clocks = [int(await said(clone, "date", "+%s")) for clone in clones]
        assert all(abs(clock - time.time()) < 30 for clock in clocks)
        await clones[0].run(["sh", "-c", "echo mine > /root/file"], check=True)
        assert await said(clones[1], "cat", "/root/file") == "kept"
        assert (await clones[2].kill()).cause is ExitCause.KILLED


async def test_a_difference(
    ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence
) -> None:
    """Saved in full, then what changed: laid over the first it is the second, and a machine goes on from it."""
    async with launched(driver, home, spec_of(ground), evidence) as made:
        full = await made.snapshot(tmp_path / "full")
        await made.run(["sh", "-c", "echo later > /dev/shm/file"], check=True)
        await made.agent.quiesce()
        await made.vm.pause()
        await made.agent.part()
        (tmp_path / "diff").mkdir()
        await vm_of(made).save(tmp_path / "diff", diff=True)
    memory, diff = full.path / "memory", tmp_path / "diff" / "memory"
    assert diff.stat().st_size == memory.stat().st_size
    assert 0 < diff.stat().st_blocks * 512 < memory.stat().st_size / 4
    merged = tmp_path / "merged"
    await asyncio.to_thread(_lay_over, memory, diff, merged)
    directory = tmp_path / "laid"
    directory.mkdir()
    for file in (tmp_path / "diff").iterdir():
        if file.name != "memory":
            os.link(file, directory / file.name)
    merged.rename(directory / "memory")
    own = tmp_path / "own"
    own.mkdir()
    async with (
        driver.restore(spec_of(ground), directory, own) as vm,
        Agent.connect(await vm.channel(), Identity.fresh("laid"), timeout=DEADLINE_S) as agent,
    ):
        assert (await agent.run(["cat", "/dev/shm/file"])).stdout == b"later\n"


def _lay_over(base: Path, diff: Path, target: Path) -> None:
    target.write_bytes(base.read_bytes())
    with diff.open("rb") as source, target.open("r+b") as out:
        for low, high in data_extents(source.fileno(), diff.stat().st_size):
            out.seek(low)
            source.seek(low)
            out.write(source.read(high - low))


async def test_devices(ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence) -> None:
    for name, size in (("one", 1 << 20), ("two", 2 << 20)):
        (tmp_path / name).write_bytes(name.encode().ljust(size, b"\0"))
    spec = spec_of(
        ground,
        drives=(Drive(name="extra", path=tmp_path / "one", rate=RateLimit(bytes_per_s=1 << 20)),),
        scratch_rate=RateLimit(operations_per_s=5000, burst_operations=5000),
        balloon=Balloon(mib=0, statistics_s=1),
    )
    async with launched(driver, home, spec, evidence) as made:
        vm = vm_of(made)
        assert await said(made, "head", "-c", "3", "/dev/vdc") == "one"
        await vm.update_drive("extra", path=tmp_path / "two")
        assert await said(made, "sh", "-c", "blockdev --flushbufs /dev/vdc; head -c 3 /dev/vdc") == "two"
        assert await said(made, "cat", "/sys/block/vdc/size") == "4096"
        await vm.update_drive("scratch", rate=RateLimit(bytes_per_s=10 << 20))
        await vm.set_balloon(32)
        async with asyncio.timeout(60):
            while (await vm.balloon_statistics())["actual_mib"] < 32:
                await asyncio.sleep(0.2)
        assert (await vm.balloon_statistics())["total_memory"] > 0
        record = await vm.metrics()
        assert record["block"]["read_count"] > 0
        assert vm.last_metrics() == record
        assert "InstanceStart" in vm.log() or "executed successfully" in vm.log()
        assert made.console() == "" or "panic" not in made.console()
        taken = await made.snapshot(tmp_path / "taken")
        with pytest.raises(SpecError, match="no drive"):
            await vm.update_drive("none", rate=RateLimit())
    async with machine.restore(taken, driver, home=home, deadline=DEADLINE_S) as again:
        watch(again, evidence)
        assert await said(again, "head", "-c", "3", "/dev/vdc") == "two"


async def test_how_machines_end(
    ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence
) -> None:
    async with launched(driver, home, spec_of(ground), evidence) as made:
        taken = await made.snapshot(tmp_path / "taken")

    async def end(act) -> ExitCause:
        async with machine.restore(taken, driver, home=home, deadline=DEADLINE_S) as clone:
            watch(clone, evidence)
            await act(clone)
            return (await asyncio.wait_for(clone.wait(), 60)).cause

    async def panic(clone: Machine) -> None:
        with pytest.raises(machine.MachineError):
            await clone.run(["sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 60"])

    async def keys(clone: Machine) -> None:
        await vm_of(clone).send_ctrl_alt_del()

    async def kill(clone: Machine) -> None:
        await clone.kill()

    async def from_outside(clone: Machine) -> None:
        assert clone.pid is not None
        os.kill(clone.pid, signal.SIGKILL)

    async def terminate(clone: Machine) -> None:
        await vm_of(clone).terminate()

    async def stuck(clone: Machine) -> None:
        """The agent cannot do it: the ladder ends the machine, and not after its last rung."""
        clone.agent.lose(EOFError("for the test"))
        await clone.stop(deadline=5)

    assert await end(panic) is ExitCause.PANIC
    assert await end(keys) in (ExitCause.REBOOT, ExitCause.POWEROFF)
    assert await end(kill) is ExitCause.KILLED
    assert await end(from_outside) is ExitCause.OUT_OF_MEMORY
    assert await end(terminate) is ExitCause.KILLED
    assert await end(stuck) in (ExitCause.POWEROFF, ExitCause.KILLED)


async def test_the_smallest_guests(driver: Firecracker, tmp_path: Path) -> None:
    """No kernel, no agent: what the driver makes of a guest's few instructions, and that a call to the API costs little."""
    (tmp_path / "initrd").write_bytes(bytes(4096))
    spec = {"initrd": tmp_path / "initrd", "memory_mib": 64, "scratch_mib": 16}
    for name in ("ends", "talks"):
        (tmp_path / name).mkdir()
    ends = MachineSpec(kernel=tiny.rebooter(tmp_path / "rebooter"), **spec)
    async with driver.boot(ends, tmp_path / "ends") as vm:
        end = await asyncio.wait_for(vm.wait(), 30)
        assert (end.cause, vm.console()) == (ExitCause.REBOOT, "bye\n")
    talks = MachineSpec(kernel=tiny.talker(tmp_path / "talker"), **spec)
    async with driver.boot(talks, tmp_path / "talks") as vm:
        async with asyncio.timeout(30):
            while "tiny\n..." not in vm.console():
                await asyncio.sleep(0.01)
        await vm.pause()
        said_until = vm.console()
        await asyncio.sleep(0.2)
        assert vm.console() == said_until, "a paused guest went on"
        await vm.resume()
        async with asyncio.timeout(30):
            while vm.console() == said_until:
                await asyncio.sleep(0.01)


async def test_a_snapshot_firecracker_cannot_read_is_told(
    ground: Ground, driver: Firecracker, home: Path, tmp_path: Path, evidence: Evidence
) -> None:
    async with launched(driver, home, spec_of(ground), evidence) as made:
        taken = await made.snapshot(tmp_path / "taken")
    damaged = bytearray((taken.path / "state").read_bytes())
    damaged[100] ^= 0xFF
    (taken.path / "state").unlink()
    (taken.path / "state").write_bytes(damaged)
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(SnapshotError, match="cannot restore"):
        async with driver.restore(taken.spec, taken.path, own):
            pytest.fail("a damaged snapshot was restored")
