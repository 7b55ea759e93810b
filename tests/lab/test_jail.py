"""The real jailer around the real Firecracker: what it promises, from outside, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebrick.machine import HostError, MachineSpec, owner
from firebrick.machine.jail import record
from firebrick.machine.jail.group import CONTROLLERS, find_groups, need_groups
from firebrick.machine.jail.jailer import OVERHEAD_MIB, Jailer, JailerRoom
from firebrick.machine.jail.limits import IoLimit, Limits
from firebrick.machine.seat import FIRST_ID, SEATS, Seat, Seats
from firebrick.process import PIPE, Process, spawn
from lab.ground import Ground

NAMESPACES = ("ipc", "mnt", "pid", "uts")
ARGUMENTS = ("--api-sock", "api.sock")


@dataclass
class Jailed:
    room: JailerRoom
    process: Process
    pid: int
    directory: Path

    @property
    def record(self) -> record.Record:
        found = record.read(self.directory)
        assert found is not None
        return found

    async def ask(self, path: str) -> bytes:
        """What Firecracker answers to a GET."""
        fd = os.open(self.room.root, os.O_RDONLY)
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{fd}/api.sock")
                        break
                    except (FileNotFoundError, ConnectionRefusedError):
                        await asyncio.sleep(0.01)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode())
                    return await reader.readuntil(b"}")
                finally:
                    writer.transport.abort()
        finally:
            os.close(fd)

    async def end(self) -> int:
        return self.room.status(await asyncio.wait_for(self.process.wait(), 10))


def spec_of(ground: Ground) -> MachineSpec:
    return MachineSpec(kernel=ground.kernel, initrd=ground.initrd, root=ground.root, memory_mib=128, scratch_mib=64)


@asynccontextmanager
async def jailed(
    ground: Ground, directory: Path, limits: Limits | None = None, netns: Path | None = None
) -> AsyncIterator[Jailed]:
    rooms = Jailer(ground.firecracker, ground.jailer, limits or Limits(), groups=find_groups())
    with owner.claimed(directory, directory.name), Seats().take(directory) as seat:
        async with rooms.open(spec_of(ground), directory, seat) as room:
            room.share(ground.kernel, "vmlinux")
            (room.root / "scratch.img").write_bytes(bytes(4096))
            room.own("scratch.img")
            argv = room.argv(ARGUMENTS, netns=netns)
            async with spawn(argv, cwd=room.root, stdout=PIPE, stderr=PIPE, pass_fds=room.fds, grace=0) as process:
                try:
                    pid = await room.pid_of(process.pid)
                except HostError as error:
                    raise HostError(f"{error}: {(await process.stderr.read()).decode()}") from error
                yield Jailed(room, process, pid, directory)


def left_of(seat: int) -> list[str]:
    found = [f"process {pid}" for pid in record.processes_of(FIRST_ID + seat)]
    group = find_groups().mount / "firebrick" / f"fb{seat}"
    text = (SEATS / str(seat)).read_text()
    return found + [f"group {group}"] * group.exists() + [f"seat of {text}"] * bool(text)


async def test_firecracker_is_less_than_anyone(ground: Ground, tmp_path: Path) -> None:
    async with jailed(ground, tmp_path / "m-1", Limits(open_files=300)) as m:
        assert b"firecracker_version" in await m.ask("/version")
        lines = Path(f"/proc/{m.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        kept = m.record
        assert status["Name"].startswith("firecracker")
        assert status["Uid"].split() == status["Gid"].split() == [str(kept.uid)] * 4
        assert status["Groups"].split() == []
        assert {status[name] for name in ("CapPrm", "CapEff", "CapAmb")} == {"0000000000000000"}
        assert status["NoNewPrivs"] == "1"
        for name in NAMESPACES:
            there, here = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in (m.pid, "self"))
            assert there != here, f"it shares the namespace {name}"
        held = {os.readlink(entry) for entry in Path(f"/proc/{m.pid}/fd").iterdir()}
        assert {name for name in held if name.startswith("/")} == {"/dev/null"}, "it inherited a file"
        limits = Path(f"/proc/{m.pid}/limits").read_text()
        assert limits.split("Max open files")[1].split()[:2] == ["300", "300"]
        assert limits.split("Max file size")[1].split()[0] == str(Limits().longest_file(spec_of(ground)))
        assert (kept.pid, kept.runs) == (m.pid, True)
        seat = kept.seat
    assert not m.directory.exists()
    assert not kept.runs
    assert left_of(seat) == []


async def test_it_sees_its_chroot_alone_and_cannot_write_what_it_shares(ground: Ground, tmp_path: Path) -> None:
    async with jailed(ground, tmp_path / "m-2") as m:
        await m.ask("/version")
        root = Path(f"/proc/{m.pid}/root")
        assert {"api.sock", "dev", "firecracker", "run", "scratch.img", "vmlinux"} <= {p.name for p in root.iterdir()}
        assert not (root / "etc").exists()
        assert not (root / "proc").exists()
        uid = m.record.uid
        assert (root / "scratch.img").stat().st_uid == uid
        shared, source = (root / "vmlinux").stat(), ground.kernel.stat()
        assert (shared.st_dev, shared.st_ino) == (source.st_dev, source.st_ino), "it was copied"
        assert shared.st_uid != uid
        assert shared.st_mode & 0o022 == 0
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", "test"]
        for argument, can in (("-r", True), ("-w", False)):
            done = subprocess.run([*user, argument, root / "vmlinux"], check=False)
            assert (done.returncode == 0) is can
        # Mounts made for the jail are the jail's: the host has none of them.
        assert str(m.directory) not in Path("/proc/self/mountinfo").read_text()
        with pytest.raises(HostError, match="it is shared"):
            m.room.own("vmlinux")


async def test_it_is_in_a_group_with_every_limit(ground: Ground, tmp_path: Path) -> None:
    groups = need_groups()
    device = os.stat(tmp_path).st_dev
    disk = next(
        (
            f"{os.major(d)}:{os.minor(d)}"
            for d in (device,)
            if Path(f"/sys/dev/block/{os.major(d)}:{os.minor(d)}").exists()
        ),
        next(p.read_text().strip() for p in Path("/sys/block").glob("vd*/dev")),
    )
    limits = Limits(cpus=0.5, processes=77, io={disk: IoLimit(bytes_per_s=1 << 20)})
    async with jailed(ground, tmp_path / "m-3", limits) as m:
        await m.ask("/version")
        group = groups.mount / "firebrick" / f"fb{m.record.seat}"
        assert m.pid in map(int, (group / "cgroup.procs").read_text().split())
        assert {name: (group / name).read_text().strip() for name in ("cpu.max", "pids.max", "memory.max")} == {
            "cpu.max": "50000 100000",
            "pids.max": "77",
            "memory.max": str((128 + OVERHEAD_MIB) << 20),
        }
        assert f"{disk} rbps=1048576 wbps=1048576 riops=max wiops=max" in (group / "io.max").read_text()
        assert set(CONTROLLERS) <= set((group / "cgroup.controllers").read_text().split())
        assert not m.room.out_of_memory()


async def test_too_much_memory_is_told_from_other_ends(ground: Ground, tmp_path: Path) -> None:
    need_groups()
    async with jailed(ground, tmp_path / "m-4", Limits(memory_mib=64)) as m:
        await m.ask("/version")
        group = Path(m.record.group)
        hog = "import os; open(os.sys.argv[1] + '/cgroup.procs', 'w').write('0'); x = bytearray(200 << 20)"
        assert subprocess.run([sys.executable, "-c", hog, str(group)], check=False).returncode == -signal.SIGKILL
        assert await m.end() == -signal.SIGKILL, "half a machine is none: the group goes as one"
        assert m.room.out_of_memory()


async def test_its_own_status_comes_back(ground: Ground, tmp_path: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        async with jailed(ground, tmp_path / f"m-{number}") as m:
            await m.ask("/version")
            os.kill(m.pid, number)
            assert await m.end() == -number
    async with jailed(ground, tmp_path / "m-5") as m:
        await m.ask("/version")
        os.kill(m.pid, signal.SIGBUS)
        assert await m.end() == 149, "a status of Firecracker's own, beyond those that tell of signals"


async def test_its_network_namespace_is_the_one_it_is_given(ground: Ground, tmp_path: Path) -> None:
    netns = tmp_path / "netns"
    netns.touch()
    subprocess.run(["unshare", f"--net={netns}", "true"], check=True)
    try:
        async with jailed(ground, tmp_path / "m-6", netns=netns) as m:
            await m.ask("/version")
            assert os.stat(f"/proc/{m.pid}/ns/net").st_ino == netns.stat().st_ino
    finally:
        subprocess.run(["umount", netns], check=True)


async def test_what_the_jailer_says_is_told(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"ended|not"):
        async with jailed(ground, tmp_path / "m-7", netns=tmp_path / "none"):
            pass
    assert not (tmp_path / "m-7").exists()
    odd = tmp_path / "vmm"
    odd.symlink_to(ground.firecracker)
    with pytest.raises(HostError, match="firecracker in their name"):
        async with Jailer(odd, ground.jailer).open(spec_of(ground), tmp_path, Seat(0, FIRST_ID, FIRST_ID)):
            pass


OWNER = """
import asyncio, sys
from pathlib import Path
from tests.lab.test_jail import jailed
from lab.ground import Ground
async def main():
    print("starts", flush=True)
    async with jailed(Ground.find(), Path(sys.argv[1])) as m:
        await m.ask("/version")
        print(m.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_firecracker_outlives_its_owner_to_be_adopted_or_reaped(ground: Ground, tmp_path: Path) -> None:
    machines = tmp_path / "machines"
    owning = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(machines / "m-8")], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert owning.stdout.readline() == "starts\n"
    pid = int(owning.stdout.readline())
    owning.kill()
    owning.wait()
    owning.stdout.close()
    kept = record.read(machines / "m-8")
    assert kept.pid == pid
    await asyncio.sleep(0.3)
    assert kept.runs, "it went with its owner, and nobody can adopt it"
    with Seats().take(tmp_path / "other") as other:
        assert other.number != kept.seat, "its seat was given away"
    assert owner.adoptable(machines) == []
    (machines / "m-8" / owner.ADOPTABLE).touch()
    assert owner.adoptable(machines) == [machines / "m-8"]
    assert owner.reap(machines, spare_adoptable=True) == []
    assert kept.runs
    assert owner.reap(machines) == ["m-8"]
    assert not kept.runs
    assert list(machines.iterdir()) == []
    assert [what for what in left_of(kept.seat) if not what.startswith("seat")] == []
    occupant = (SEATS / str(kept.seat)).read_text()
    assert not Path(occupant).exists() or not occupant.startswith(str(machines)), "nobody can have its seat"


async def test_a_start_cancelled_at_any_moment_leaves_nothing(ground: Ground, tmp_path: Path) -> None:
    machines = tmp_path / "machines"

    async def life(number: int) -> None:
        async with jailed(ground, machines / f"c-{number}") as m:
            await m.ask("/version")

    for step in range(10):
        task = asyncio.create_task(life(step))
        await asyncio.wait([task], timeout=step * 0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        assert not machines.exists() or list(machines.iterdir()) == []
    assert not [seat for seat in SEATS.iterdir() if seat.read_text().startswith(str(machines))]


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06])
async def test_an_owner_killed_at_any_moment_leaves_nothing_that_is_not_reaped(
    ground: Ground, tmp_path: Path, after_s: float
) -> None:
    """Also a jailer that is at work, and would go on after its machine's directory was removed."""
    machines = tmp_path / "machines"
    owning = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(machines / "m-9")], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert owning.stdout.readline() == "starts\n"
    await asyncio.sleep(after_s)
    owning.kill()
    owning.wait()
    owning.stdout.close()
    kept = record.read(machines / "m-9")
    assert owner.reap(machines) in ([], ["m-9"])
    await asyncio.sleep(0.2)
    # A draft, one that had no owner written into it yet, is not known to be nobody's before it is old.
    assert [path for path in machines.glob("*") if not path.name.startswith(".")] == []
    assert record.processes_around(machines / "m-9") == []
    if kept is not None:
        assert [what for what in left_of(kept.seat) if not what.startswith("seat")] == []
