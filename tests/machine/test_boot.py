"""Real boots: how they end, what they say when they fail, and that nothing is left of them."""

import asyncio
import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import BootError, Drive, ExitCause, MachineGoneError, Network, Qemu, SnapshotError, State, owner
from firebrick.machine import memory as memories
from tests.workshop import Workshop

pytestmark = pytest.mark.machine


def left(home: Path) -> list[Path]:
    return list((home / "machines").iterdir())


async def test_an_initramfs_that_is_none_is_told_by_its_console(workshop: Workshop, tmp_path):
    nothing = tmp_path / "initrd"
    nothing.write_bytes(b"no archive")
    with pytest.raises(BootError, match="kernel panicked") as caught:
        async with machine.launch(await workshop.spec(initrd=nothing), home=workshop.home):
            pass
    assert "Kernel panic" in caught.value.console
    assert caught.value.hint
    assert left(workshop.home) == []


async def test_a_file_that_is_no_kernel(workshop: Workshop, tmp_path):
    nothing = tmp_path / "vmlinuz"
    nothing.write_bytes(b"MZ" + bytes(10_000))
    with pytest.raises(BootError, match="did not start"):
        async with machine.launch(await workshop.spec(kernel=nothing), home=workshop.home, deadline=20):
            pass
    assert left(workshop.home) == []


async def test_a_root_image_that_is_none_is_told(workshop: Workshop, tmp_path):
    nothing = tmp_path / "root"
    nothing.write_bytes(bytes(1 << 20))
    with pytest.raises(BootError, match="did not start") as caught:
        async with machine.launch(await workshop.spec(root=nothing), home=workshop.home, deadline=20):
            pass
    assert "mount" in str(caught.value) + caught.value.console
    assert left(workshop.home) == []


async def test_a_deadline_is_kept(workshop: Workshop):
    began = asyncio.get_running_loop().time()
    with pytest.raises(BootError, match="did not answer within 0.3 s"):
        async with machine.launch(await workshop.spec(), home=workshop.home, deadline=0.3):
            pass
    assert asyncio.get_running_loop().time() - began < 5
    assert left(workshop.home) == []


async def test_without_a_root_image_there_is_the_agent_alone(workshop: Workshop):
    async with machine.launch(await workshop.spec(root=None, memory_mib=128), home=workshop.home) as m:
        await m.files.write("/tmp/x", b"1", parents=True)
        assert await m.files.read("/tmp/x") == b"1"


async def test_what_the_specification_asks_for_is_there(workshop: Workshop, tmp_path):
    data = tmp_path / "data,with=comma.img"
    data.write_bytes(b"drive" + bytes((1 << 20) - 5))
    spec = await workshop.spec(
        vcpus=2,
        memory_mib=384,
        scratch_mib=300,
        drives=(Drive(name="data", path=data),),
        kernel_args=("mine=yes",),
        hostname="given",
    )
    async with machine.launch(spec, home=workshop.home) as m:
        script = (
            "nproc; grep MemTotal /proc/meminfo; df -k / | tail -1; cat /proc/cmdline; hostname;"
            'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = data ] && head -c 5 /dev/${d##*/}; done; ls /sys/class/net'
        )
        nproc, memory, df, cmdline, hostname, drive = (await m.run(["sh", "-c", script])).stdout.decode().split("\n", 5)
        assert nproc == "2"
        assert 300_000 < int(memory.split()[1]) < 384 << 10
        assert 250_000 < int(df.split()[1]) < 300 << 10
        assert "mine=yes" in cmdline.split()
        assert hostname.startswith("given-")
        assert drive.split() == ["drivelo"]


async def test_a_guest_that_reboots_has_ended(workshop: Workshop, template):
    async with machine.restore(template, home=workshop.home) as m:
        with pytest.raises(MachineGoneError):
            await m.run(["sh", "-c", "echo b > /proc/sysrq-trigger; sleep 20"], check=True)
        assert (await m.wait()).cause is ExitCause.REBOOT
        assert m.state is State.ENDED


async def test_qemu_killed_by_somebody_else_is_not_our_kill(workshop: Workshop, template):
    import os
    import signal

    async with machine.restore(template, home=workshop.home) as m:
        os.kill(m.pid, signal.SIGKILL)
        assert (await m.wait()).cause is ExitCause.OUT_OF_MEMORY


async def test_user_mode_network(workshop: Workshop):
    """The guest reaches a server on this host through the gateway; no root, no device on the host."""
    served = asyncio.Event()

    async def serve(reader, writer):
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello from outside")
        await writer.drain()
        writer.close()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, machine.launch(await workshop.spec(network=Network.USER), home=workshop.home) as m:
        done = await m.run(["curl", "-sS", "--max-time", "20", f"http://10.0.2.2:{port}/"])
        assert done.stdout == b"hello from outside", done.stderr
        assert served.is_set()


async def test_only_drivers_of_devices_the_machine_has_are_loaded(workshop: Workshop):
    async def drivers(**changes) -> set[str]:
        async with machine.launch(await workshop.spec(**changes), home=workshop.home) as m:
            return set((await m.run(["ls", "/sys/module"], check=True)).stdout.decode().split())

    without, with_network = await drivers(), await drivers(network=Network.USER)
    assert {"virtio_blk", "virtio_console", "overlay"} <= without & with_network
    assert not {"virtio_net", "failover", "vsock", "virtio_balloon"} & without
    assert with_network - without >= {"virtio_net", "net_failover", "failover"}


async def test_disks_are_named_by_the_kernels_command_line_where_it_does(workshop: Workshop, tmp_path):
    data = tmp_path / "data"
    data.write_bytes(b"d" * 4096)
    drive = Drive(name="serial", path=data)
    spec = await workshop.spec(drives=(drive,))
    for arguments, name in ((), "serial"), (("firebrick.disks=root,scratch,ordered",), "ordered"):
        changed = dataclasses.replace(spec, kernel_args=(*spec.kernel_args, *arguments))
        async with machine.launch(changed, home=workshop.home) as m:
            names = (await m.run(["ls", "/dev/disk/by-serial"], check=True)).stdout.decode().split()
            assert names == sorted(["root", "scratch", name])
            assert (await m.run(["cat", f"/dev/disk/by-serial/{name}"], check=True)).stdout == b"d" * 4096


async def test_a_guest_can_run_machines_itself(workshop: Workshop):
    from firebrick.image import ImageStore

    kernel = await ImageStore(workshop.images).ensure_kernel("debian")
    spec = await workshop.spec(nested=True, memory_mib=512, drives=(Drive(name="modules", path=kernel.modules),))
    load = """
        my ($disk) = grep { `cat /sys/block/$_/serial` =~ /modules/ } map { s,.*/,,r } glob("/sys/block/vd*");
        mkdir "/m"; system("mount", "-t", "squashfs", "-o", "ro", "/dev/$disk", "/m") and die;
        for my $name ("irqbypass", "kvm", "kvm-amd") {
            my $file = `find /m -name $name.ko`; chomp $file;
            open(my $module, "<", $file) or die "$name: $!";
            my $options = ""; my $fd = fileno($module) + 0;
            syscall(313, $fd, $options, 0) == 0 or die "$name: $!";
        }
    """
    async with machine.launch(spec, home=workshop.home) as m:
        await m.run(["perl", "-e", load], check=True)
        assert (await m.files.stat("/dev/kvm")).kind == "character"
        async with m.fork() as copy:
            assert (await copy.run(["test", "-c", "/dev/kvm"])).status.ok


async def test_the_layers_of_a_disk_are_what_qemu_calls_sound(workshop: Workshop, template, tmp_path):
    async with machine.restore(template, home=workshop.home) as m:
        await m.run(["sh", "-c", "head -c 20000000 /dev/urandom > /data; sync"], check=True)
        taken = await m.snapshot(tmp_path / "s")
    layers = sorted(taken.path.glob("scratch.*.qcow2"))
    assert len(layers) == 2
    for layer in layers:
        done = subprocess.run(["qemu-img", "check", "-f", "qcow2", layer], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert layers[1].stat().st_blocks * 512 > 15_000_000


async def test_a_fork_survives_its_snapshot_and_its_source(workshop: Workshop, template, tmp_path):
    import shutil

    async with machine.restore(template, home=workshop.home) as m:
        await m.files.write("/kept", b"x" * 3_000_000)
        taken = await m.snapshot(tmp_path / "s")
    async with machine.restore(taken, home=workshop.home) as copy:
        shutil.rmtree(taken.path)
        assert len(await copy.files.read("/kept")) == 3_000_000
        async with copy.fork() as again:
            assert len(await again.files.read("/kept")) == 3_000_000


async def test_no_space_for_a_snapshot_is_told_and_harms_nothing(workshop: Workshop, template, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    async with machine.restore(template, home=workshop.home) as m:
        monkeypatch.setattr(memories, "save", full)
        with pytest.raises(SnapshotError, match="No space left"):
            await m.snapshot(tmp_path / "s")
        assert list(tmp_path.iterdir()) == []
        assert (await m.run(["true"])).status.ok
        monkeypatch.undo()
        await m.snapshot(tmp_path / "s")


async def test_a_state_that_is_damaged_in_transit_is_a_boot_error(workshop: Workshop, template, tmp_path):
    import msgspec

    from firebrick.machine import Snapshot
    from firebrick.machine.snapshot import FILE, Part

    async with machine.restore(template, home=workshop.home) as m:
        taken = await m.snapshot(tmp_path / "s")
    state = taken.path / "state"
    state.chmod(0o600)
    state.write_bytes(state.read_bytes()[:2000])
    record = msgspec.json.decode((taken.path / FILE).read_bytes())
    record["files"]["state"] = msgspec.to_builtins(Part.of(state, digested=True))
    (taken.path / FILE).write_bytes(msgspec.json.encode(record))
    with pytest.raises(BootError, match="QEMU ended with status 1"):
        async with machine.restore(Snapshot.load(taken.path), home=workshop.home):
            pass


async def test_starting_and_ending_over_and_over_leaves_nothing(workshop: Workshop, template):
    from tests.leak import Belongings

    async with machine.restore(template, home=workshop.home) as m:
        await m.run(["true"])
    before = Belongings.now()
    for _ in range(12):
        async with machine.restore(template, home=workshop.home) as m:
            await m.run(["true"], check=True)
    assert Belongings.settled_since(before) == ""
    assert left(workshop.home) == []


async def test_cancelled_while_it_starts_it_leaves_nothing(workshop: Workshop, template):
    async def life() -> None:
        async with machine.restore(template, home=workshop.home) as m:
            await m.run(["true"])
            async with m.fork() as copy:
                await copy.run(["true"])

    chance = random.Random(7)
    for _ in range(12):
        task = asyncio.create_task(life())
        await asyncio.wait([task], timeout=chance.uniform(0, 0.9))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        assert left(workshop.home) == []


OWNER = """
import asyncio, sys
from pathlib import Path
from firebrick import machine
async def main():
    taken = machine.Snapshot.load(Path(sys.argv[1]))
    async with machine.restore(taken, home=Path(sys.argv[2])) as m, m.fork() as copy:
        await copy.run(["true"])
        print(m.pid, copy.pid, m.id, copy.id, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_an_owner_that_is_killed_takes_its_machines_with_it(workshop: Workshop, template):
    owning = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(template.path), str(workshop.home)], stdout=subprocess.PIPE, text=True
    )
    words = owning.stdout.readline().split()
    owning.kill()
    owning.wait()
    owning.stdout.close()
    async with asyncio.timeout(10):
        while any(owner.processes_of(name) for name in words[2:]):
            await asyncio.sleep(0.02)
    assert {path.name for path in left(workshop.home)} == set(words[2:])
    assert set(owner.reap(workshop.home / "machines")) == set(words[2:])
    assert left(workshop.home) == []


async def test_what_a_dead_owner_left_running_is_ended(workshop: Workshop, template):
    """The death signal is not all there is: a machine that outlives its owner is found by its name."""
    import msgspec

    async with machine.restore(template, home=workshop.home) as m:
        mine = owner.read(m.directory)
        (m.directory / owner.FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(mine, started=1)))
        assert await asyncio.to_thread(owner.reap, workshop.home / "machines") == [m.id]
        assert (await m.wait()).cause is ExitCause.OUT_OF_MEMORY


async def test_many_boots_in_a_row_come_up(workshop: Workshop):
    """An emulated kernel that is not told its clock hangs in one boot of six on a busy host."""
    spec = await workshop.spec(memory_mib=128, root=None)
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for _ in range(6):
            async with machine.launch(spec, home=workshop.home, deadline=30) as m:
                assert m.state is State.RUNNING
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


async def test_forks_wait_for_nothing(workshop: Workshop, template):
    """Ten alive at once, idle ones cost next to nothing."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        copies = [await stack.enter_async_context(machine.restore(template, home=workshop.home)) for _ in range(10)]
        assert all(await asyncio.gather(*(copy.run(["true"]) for copy in copies)))
        await asyncio.sleep(1)
        before = [copy._vm.usage().cpu_s for copy in copies]
        await asyncio.sleep(4)
        used = [copy._vm.usage().cpu_s - was for copy, was in zip(copies, before, strict=True)]
    assert sum(used) / len(used) < 0.04 * 2, used


async def test_the_driver_says_what_a_snapshot_depends_on(workshop: Workshop):
    facts = await Qemu(workshop.home / "cache").facts(await workshop.spec())
    assert {"QEMU", "accelerator", "machine type", "processor"} <= set(facts)
