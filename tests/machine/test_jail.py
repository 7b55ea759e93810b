"""What a jail promises, seen from outside and from inside; and that nothing of one is left, however it ended. All of it needs root."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from firebrick import machine
from firebrick.machine import ExitCause, HostError, Network, Qemu, SnapshotError, SpecError, memory, owner
from firebrick.machine.jail import files, record
from firebrick.machine.jail.bubble import Bubble
from firebrick.machine.jail.group import Group, find_groups
from firebrick.machine.jail.jailer import Jailer, JailerRoom
from firebrick.machine.jail.limits import Limits
from firebrick.machine.seat import FIRST_ID, SEATS, Seat, Seats
from tests.workshop import Workshop

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make jails"),
]

NAMESPACES = ("ipc", "mnt", "net", "pid", "uts", "cgroup")


def jailed(workshop: Workshop, **limits) -> Qemu:
    return Qemu(workshop.home / "cache", rooms=Bubble(Limits(**limits)))


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def limits_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/limits").read_text().splitlines()


def left_of(seat: int) -> list[str]:
    """What there is of a seat on this host: processes, control groups, an occupied file."""
    found = [f"process {pid}" for pid in record.processes_of(FIRST_ID + seat)]
    groups = find_groups()
    if groups is not None and (group := groups.mount / "firebrick" / f"fb{seat}").exists():
        found.append(f"group {group}")
    if text := (SEATS / str(seat)).read_text():
        found.append(f"seat {seat} of {text}")
    return found


async def test_qemu_is_less_than_anyone(workshop: Workshop, template):
    async with machine.restore(template, jailed(workshop, open_files=200), home=workshop.home) as m:
        said = status_of(m.pid)
        kept = record.read(m.directory)
        assert said["Uid"].split() == [str(kept.uid)] * 4
        assert said["Gid"].split() == [str(kept.gid)] * 4
        assert said["Groups"].split() == []
        assert {said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}
        assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
        for name in NAMESPACES:
            there, here = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in (m.pid, "self"))
            assert there != here, f"it shares the namespace {name}"
        limits = {line[:26].strip(): line[26:].split()[:2] for line in limits_of(m.pid)}
        assert limits["Max open files"] == ["200"] * 2
        assert limits["Max processes"] == ["128"] * 2
        assert limits["Max core file size"] == ["0"] * 2
        assert limits["Max file size"] == [str(Limits().longest_file(m.spec))] * 2
        assert kept.pid == m.pid
        assert kept.runs


async def test_qemu_sees_nothing_of_the_host_but_what_it_needs(workshop: Workshop, template):
    async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
        root = Path(f"/proc/{m.pid}/root")
        assert {path.name for path in root.iterdir()} <= {
            *("bin", "lib", "lib64", "usr", "etc", "dev", "proc", m.directory.parts[1], m.spec.root.parts[1])
        }
        assert [path.name for path in (root / "etc").iterdir()] == ["ld.so.cache"]
        assert {path.name for path in (root / "dev").iterdir()} == {"null", "zero", "urandom"}
        files = root / m.directory.relative_to("/")
        assert [path.name for path in files.parent.iterdir()] == [m.id]
        assert not (root / workshop.home.relative_to("/") / "template").exists()
        writable = [path.name for path in files.iterdir() if path.stat().st_uid == record.read(m.directory).uid]
        assert writable == [max(path.name for path in m.directory.glob("scratch.*"))]
        mounts = (Path(f"/proc/{m.pid}/mountinfo")).read_text().splitlines()
        writable = {words[4] for words in map(str.split, mounts) if "rw" in words[5].split(",")}
        assert writable == {*("/dev/null", "/dev/zero", "/dev/urandom", "/proc"), str(m.directory)}
        links = Path(f"/proc/{m.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in links] == ["lo"]


async def test_qemu_holds_no_file_it_has_no_use_for(workshop: Workshop, template):
    """And of those that others have too, none that it could write to."""
    with Path("/etc/hostname").open() as ours:
        os.set_inheritable(ours.fileno(), True)
        async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
            held = {}
            for entry in Path(f"/proc/{m.pid}/fd").iterdir():
                flags = int((entry.parent.parent / "fdinfo" / entry.name).read_text().split("flags:")[1].split()[0], 8)
                held.setdefault(str(entry.readlink()), set()).add(flags & os.O_ACCMODE)
            files = {name: modes for name, modes in held.items() if name.startswith("/") and name != "/dev/null"}
            layers = sorted(m.directory.glob("scratch.*"))
            template_layers = {str(path): {os.O_RDONLY} for path in layers[:-1]}
            state = str(template.path / "state")
            files.pop(state, None)
            memory = files.pop("/memfd:firebrick-memory (deleted)")
            assert memory == {os.O_RDWR}, "sealed: see test_sealed_memory_cannot_be_changed"
            assert files == {str(layers[-1]): {os.O_RDWR}, str(m.spec.root): {os.O_RDONLY}, **template_layers}


# Run as QEMU would be, in its stead: what a guest that has broken out could do.
INSIDE = """
import json, os, socket, sys
def can(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return True
memory = sys.argv[2]
print(json.dumps({
    "uid": os.getuid(), "pid": os.getpid(),
    "files": sorted(os.listdir("/")),
    "passwd": can(lambda: open("/etc/passwd")),
    "make a file": can(lambda: open(sys.argv[1] + "/new", "w")),
    "list": can(lambda: os.listdir(sys.argv[1])),
    "owner": can(lambda: open(sys.argv[1] + "/owner.json")),
    "jail": can(lambda: open(sys.argv[1] + "/jail.json")),
    "write the base": can(lambda: open(sys.argv[1] + "/scratch.0.raw", "r+b")),
    "write the disk": can(lambda: open(sys.argv[1] + "/scratch.1.qcow2", "r+b")),
    "write memory": can(lambda: os.write(os.open(memory, os.O_RDWR), b"x")) if memory else "none",
    "become root": can(lambda: os.setuid(0)),
    "signal": can(lambda: os.kill(1, 9)),
    "monitor": can(lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1] + "/monitor.sock")),
    "network": can(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 1)),
    "mount": can(lambda: os.chroot("/usr")),
}))
"""


async def test_a_guest_that_breaks_out_has_gained_nothing(workshop: Workshop, tmp_path):
    from firebrick.machine.jail.sealed import SealedFiles
    from firebrick.machine.seat import Seats
    from firebrick.process import PIPE, spawn

    directory = tmp_path / "m"
    directory.mkdir()
    for name in ("scratch.0.raw", "scratch.1.qcow2", "owner.json", "memory"):
        (directory / name).write_bytes(b"content")
    sealed = SealedFiles()
    spec = await workshop.spec()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as monitor,
        Seats().take(directory) as seat,
    ):
        monitor.bind(str(directory / "monitor.sock"))
        monitor.listen()
        async with Bubble().open(spec, directory, seat) as room, sealed.open(directory / "memory") as memory:
            room.own("scratch.1.qcow2")
            port = server.getsockname()[1]
            argv = room.argv(
                ["/usr/bin/python3", "-I", "-c", INSIDE, str(directory), f"/proc/self/fd/{memory}", str(port)]
            )
            async with spawn(argv, stdout=PIPE, stderr=PIPE, pass_fds=[*room.fds, memory]) as process:
                await room.pid_of(process.pid)
                said = json.loads(await process.stdout.read())
                assert await process.wait() == 0
    assert said.pop("files") == sorted({"usr", "etc", "dev", "proc", "bin", "lib", "lib64", directory.parts[1]})
    assert said == {
        "uid": seat.uid,
        "pid": 2,
        "passwd": "FileNotFoundError",
        "make a file": "PermissionError",
        "list": "PermissionError",
        "owner": True,  # this one was made by the test, open to all
        "jail": "PermissionError",
        "write the base": "PermissionError",
        "write the disk": True,
        "write memory": "PermissionError",
        "become root": "PermissionError",
        "signal": "PermissionError",
        "monitor": "PermissionError",
        "network": "ConnectionRefusedError",
        "mount": "PermissionError",
    }
    assert left_of(seat.number) == []


def test_a_running_vmm_gets_nothing_that_is_shared_by_giving_it_another_name(tmp_path):
    """Firecracker owns its chroot: between making something there and giving it away it can put another file in its place."""
    made = Jailer(Path("/f/firecracker"), Path("/f/jailer"))
    room = JailerRoom(made, tmp_path, Seat(7, 2_000_007, 2_000_007), Group(tmp_path / "firebrick" / "fb7"), 0)
    room.root.mkdir(parents=True)
    image = tmp_path / "image"
    image.write_bytes(b"everybody's")
    image.chmod(0o644)
    room.share(image, "vmlinux")
    (room.root / "vmlinux").rename(room.root / "save1")
    with pytest.raises(HostError, match="others have that file too"):
        room.own("save1")
    assert (image.stat().st_uid, image.stat().st_mode & 0o777) == (0, 0o644)


def chroot_of(tmp_path: Path) -> JailerRoom:
    """As the jailer leaves it: every directory is the VMM's."""
    made = Jailer(Path("/f/firecracker"), Path("/f/jailer"))
    seat = Seat(7, 2_000_007, 2_000_007)
    room = JailerRoom(made, tmp_path, seat, Group(tmp_path / "firebrick" / "fb7"), 0)
    for directory in (room.root, room.root / "dev" / "net", room.root / "run"):
        directory.mkdir(parents=True)
    for directory in (room.root, room.root / "dev", room.root / "dev" / "net", room.root / "run"):
        os.chown(directory, seat.uid, seat.gid)
    (room.root / "scratch.img").touch()
    room.own("scratch.img")
    return room


AS_THE_VMM = """
import os, sys
os.chroot(sys.argv[1]); os.chdir("/"); os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
for name in sys.argv[3:]:
    try:
        with open(name, "wb") as file:
            file.write(b"x")
        print(name)
    except OSError:
        pass
"""


def written_by_the_vmm(room: JailerRoom, *names: str) -> list[str]:
    """Which of these files a VMM that was taken over can write."""
    argv = [sys.executable, "-I", "-c", AS_THE_VMM, str(room.root), str(room.seat.uid), *names]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


def test_a_vmm_that_was_taken_over_makes_no_files(tmp_path):
    os.chmod(tmp_path, 0o755)
    room = chroot_of(tmp_path)
    places = ("x", "dev/x", "dev/net/x", "run/x")
    assert written_by_the_vmm(room, *places) == list(places)
    for name in places:
        (room.root / name).unlink()
    with room.closing("v.sock"):
        assert written_by_the_vmm(room, "v.sock") == ["v.sock"]
    assert written_by_the_vmm(room, *places, "scratch.img", "v.sock") == ["scratch.img", "v.sock"]
    room.prepare("save1", ("state", "memory"))
    assert written_by_the_vmm(room, "save1/state", "save1/memory", "save1/x") == ["save1/state", "save1/memory"]


@pytest.mark.parametrize("name", ["x", "dev/x", "run/x"])
def test_a_vmm_that_makes_something_while_it_may_is_given_away(tmp_path, name):
    os.chmod(tmp_path, 0o755)
    room = chroot_of(tmp_path)
    with pytest.raises(HostError, match=f"a VMM has made {name} in its jail"), room.closing("v.sock"):
        assert written_by_the_vmm(room, "v.sock", name) == ["v.sock", name]
    assert written_by_the_vmm(room, "y") == []


def test_a_copy_for_a_running_vmm_changes_no_mode_of_what_a_link_leads_to(tmp_path, monkeypatch):
    source, secret, target = tmp_path / "source", tmp_path / "secret", tmp_path / "target"
    for path in (source, secret):
        path.touch(mode=0o600)
    copied = memory.copy_sparse

    def swapped(*arguments, **options) -> None:
        copied(*arguments, **options)
        target.unlink()
        target.symlink_to(secret)

    monkeypatch.setattr(memory, "copy_sparse", swapped)
    files.copy(source, target)
    assert secret.stat().st_mode & 0o777 == 0o600


async def test_the_processes_are_in_the_group_with_the_limits(workshop: Workshop, template):
    groups = find_groups()
    assert groups is not None, "this host has no cgroup of version 2 at all"
    async with machine.restore(template, jailed(workshop, processes=99, cpus=1.5), home=workshop.home) as m:
        kept = record.read(m.directory)
        group = Path(kept.group)
        assert group == groups.mount / "firebrick" / f"fb{kept.seat}"
        members = {int(line) for line in (group / "cgroup.procs").read_text().split()}
        assert m.pid in members
        assert len(members) == 3, "bwrap, the first process of the namespace, and QEMU"
        wanted = {"pids.max": "99", "cpu.max": "150000 100000", "memory.swap.max": "0"}
        wanted = {name: value for name, value in wanted.items() if name.split(".")[0] in groups.controllers}
        assert {name: (group / name).read_text().strip() for name in wanted} == wanted
    assert not group.exists()


async def test_no_two_have_one_user(workshop: Workshop, template):
    driver = jailed(workshop)
    async with (
        machine.restore(template, driver, home=workshop.home) as a,
        machine.restore(template, driver, home=workshop.home) as b,
    ):
        one, other = (record.read(m.directory) for m in (a, b))
        assert one.uid != other.uid
        assert os.readlink(f"/proc/{a.pid}/fd/0") == "/dev/null"
        maps = Path(f"/proc/{a.pid}/maps").read_text(), Path(f"/proc/{b.pid}/maps").read_text()
        inodes = [next(line.split()[4] for line in text.splitlines() if "memfd:firebrick" in line) for text in maps]
        assert inodes[0] == inodes[1], "they share the memory of their snapshot"
    assert left_of(one.seat) == left_of(other.seat) == []


async def test_a_saved_layer_is_out_of_the_jails_reach(workshop: Workshop, template, tmp_path):
    """Also after its user's number was given to another machine."""
    async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
        await m.files.write("/x", b"1")
        taken = await m.snapshot(tmp_path / "snapshot")
        for layer in tmp_path.glob("snapshot/scratch.*"):
            facts = layer.stat()
            assert (facts.st_uid, facts.st_mode & 0o777) == (0, 0o444)
        modes = [
            int(Path(f"/proc/{m.pid}/fdinfo/{fd.name}").read_text().split("flags:")[1].split()[0], 8) & os.O_ACCMODE
            for fd in Path(f"/proc/{m.pid}/fd").iterdir()
            if ".qcow2" in str(fd.readlink())
        ]
        assert sorted(modes) == [os.O_RDONLY] * (len(modes) - 1) + [os.O_RDWR]
        await m.files.write("/y", b"2")
        async with machine.restore(taken, Qemu(workshop.home / "cache"), home=workshop.home) as free:
            assert await free.files.read("/x") == b"1", "a snapshot of a jailed machine is like any other"


async def test_a_layer_somebody_can_still_write_is_no_part_of_a_snapshot(workshop: Workshop, template, tmp_path):
    """As a QEMU that was taken over could: it keeps the descriptor it was to let go of. Nor is it given to another machine."""
    async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
        top = max(m.directory.glob("scratch.*.qcow2"))
        with top.open("r+b"), pytest.raises(SnapshotError, match=f"{top} .*still open for writing"):
            await m.snapshot(tmp_path / "snapshot")
        assert not (tmp_path / "snapshot").exists()
        assert (await m.run(["true"])).status.ok
        taken = await m.snapshot(tmp_path / "snapshot")
        saved = max(taken.path.glob("scratch.*.qcow2"))
        with saved.open("r+b"), pytest.raises(HostError, match=f"cannot share {saved} with a jail: something on this"):
            async with machine.restore(taken, jailed(workshop), home=workshop.home):
                pass
        async with machine.restore(taken, jailed(workshop), home=workshop.home) as copy:
            assert (await copy.run(["true"])).status.ok


async def test_sealed_memory_cannot_be_changed(tmp_path):
    from firebrick.machine.jail.sealed import SealedFiles

    file = tmp_path / "memory"
    with file.open("wb") as out:
        out.truncate(8 << 20)
        out.seek(5 << 20)
        out.write(b"content")
    sealed = SealedFiles()
    async with sealed.open(file) as fd, sealed.open(file) as again:
        assert again == fd
        assert os.pread(fd, 8 << 20, 0) == file.read_bytes()
        assert os.fstat(fd).st_blocks * 512 < 1 << 20, "holes stay holes"
        for attack in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 9 << 20)):
            with pytest.raises(PermissionError):
                attack()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_qemu_killed_by_somebody_is_said(workshop: Workshop, template):
    async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
        seat = record.read(m.directory).seat
        os.kill(m.pid, signal.SIGKILL)
        assert (await m.wait()).cause is ExitCause.OUT_OF_MEMORY
    async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
        os.kill(m.pid, signal.SIGSEGV)
        end = await m.wait()
        assert end.cause is ExitCause.CRASHED
        assert "SIGSEGV" in end.message
    assert left_of(seat) == []


async def test_a_start_that_fails_says_why_and_leaves_nothing(workshop: Workshop, template, monkeypatch):
    monkeypatch.setattr("firebrick.machine.jail.bubble._SYSTEM", ("/usr", "/no/such/directory"))
    with pytest.raises(HostError, match="/no/such/directory"):
        async with machine.restore(template, jailed(workshop), home=workshop.home):
            pass
    assert list((workshop.home / "machines").iterdir()) == []
    assert not [seat for seat in SEATS.iterdir() if seat.read_text().startswith(str(workshop.home))]


async def test_what_a_jail_cannot_have_is_refused(workshop: Workshop):
    with pytest.raises(SpecError, match="user network"):
        async with machine.launch(await workshop.spec(network=Network.USER), jailed(workshop), home=workshop.home):
            pass


async def test_a_start_cancelled_at_any_moment_leaves_nothing(workshop: Workshop, template):
    async def life():
        async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
            await m.run(["true"])

    for step in range(14):
        task = asyncio.create_task(life())
        await asyncio.wait([task], timeout=step * 0.012)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        assert list((workshop.home / "machines").iterdir()) == []
        occupied = [seat.read_text() for seat in SEATS.iterdir()]
        assert not [text for text in occupied if text.startswith(str(workshop.home))]


OWNER = """
import asyncio, sys
from pathlib import Path
from firebrick import machine
from firebrick.machine.jail.bubble import Bubble
async def main():
    home = Path(sys.argv[2])
    taken = machine.Snapshot.load(Path(sys.argv[1]))
    driver = machine.Qemu(home / "cache", rooms=Bubble())
    print("starts", flush=True)
    async with machine.restore(taken, driver, home=home) as m:
        await m.run(["true"])
        print("runs", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, None])
async def test_an_owner_that_is_killed_takes_its_jails_with_it(workshop: Workshop, template, tmp_path, after_s):
    """At any moment; what the kernel does not end by itself, the next start does."""
    owning = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(template.path), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owning.stdout.readline() == "starts\n"
    if after_s is None:
        assert owning.stdout.readline() == "runs\n"
    else:
        await asyncio.sleep(after_s)
    owning.kill()
    owning.wait()
    owning.stdout.close()
    machines = tmp_path / "machines"
    records = [found for path in machines.glob("*") if (found := record.read(path))]
    assert after_s is not None or len(records) == 1
    for found in records:
        async with asyncio.timeout(5):
            while record.processes_of(found.uid):
                await asyncio.sleep(0.01)
    await asyncio.to_thread(owner.reap, machines)
    assert not machines.exists() or list(machines.iterdir()) == []
    for found in records:
        assert [what for what in left_of(found.seat) if not what.startswith("seat")] == []


async def test_a_jail_that_outlives_its_owner_is_ended_or_spared(workshop: Workshop, template):
    async with machine.restore(template, jailed(workshop), home=workshop.home) as m:
        kept = record.read(m.directory)
        mine = owner.read(m.directory)
        (m.directory / owner.ADOPTABLE).touch()
        (m.directory / owner.FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(mine, started=1)))
        machines = workshop.home / "machines"
        assert owner.adoptable(machines) == [m.directory]
        assert await asyncio.to_thread(lambda: owner.reap(machines, spare_adoptable=True)) == []
        assert (await m.run(["true"])).status.ok
        # Its seat is held, as by one who adopts it: nothing of it is touched.
        assert await asyncio.to_thread(owner.reap, machines) == []
        assert record.processes_of(kept.uid)
        assert m.directory.is_dir()
        (m.directory / owner.FILE).write_bytes(msgspec.json.encode(mine))


async def test_a_jail_lives_on_as_it_was(workshop: Workshop, template, tmp_path):
    """Released and adopted: the user, the control group and the namespaces are the same, and all of it is gone in the end."""
    async with machine.restore(template, jailed(workshop), home=workshop.home, detached=True) as before:
        was = record.read(before.directory)
        spaces = {name: os.readlink(f"/proc/{before.pid}/ns/{name}") for name in NAMESPACES}
        await before.release()
    with Seats().take() as seat:
        assert seat.number != was.seat, "a seat is kept for the machine that lives in it"
    with pytest.raises(SpecError, match="without a jail: it lives in one"):
        async with machine.adopt(before.directory, Qemu(workshop.home / "cache"), home=workshop.home):
            pass
    assert machine.adoptable(workshop.home / "machines") == [before.directory], "it is left as it was"
    async with machine.adopt(before.directory, jailed(workshop), home=workshop.home) as m:
        assert m.pid == was.pid
        assert {name: os.readlink(f"/proc/{m.pid}/ns/{name}") for name in NAMESPACES} == spaces
        assert status_of(m.pid)["Uid"].split() == [str(was.uid)] * 4
        async with m.fork() as copy:
            assert (await copy.run(["true"])).status.ok
        assert (await m.stop(deadline=20)).cause is ExitCause.POWEROFF
    assert not before.directory.exists()
    assert [what for what in left_of(was.seat) if not what.startswith("seat")] == []


async def test_a_machine_without_a_jail_is_not_adopted_with_one(workshop: Workshop, template):
    async with machine.restore(template, Qemu(workshop.home / "cache"), home=workshop.home, detached=True) as before:
        await before.release()
    with pytest.raises(SpecError, match="with a jail: it has none"):
        async with machine.adopt(before.directory, jailed(workshop), home=workshop.home):
            pass
    assert machine.reap(workshop.home / "machines") == [before.id]
    assert owner.processes_of(before.id) == []


def test_who_only_names_a_machines_directory_is_not_ended(tmp_path):
    """As one who adopts it on the command line does."""
    names = [str(tmp_path), str(tmp_path / "jail")]
    sleep = ["sh", "-c", "sleep 100 & wait", "x"]
    with (
        subprocess.Popen([*sleep, *names], start_new_session=True) as reader,
        subprocess.Popen([*sleep, "--dev-bind", *names], start_new_session=True) as jail,
        subprocess.Popen([*sleep, "--chroot-base-dir", names[1]], start_new_session=True) as jailer,
    ):
        every = (reader, jail, jailer)
        try:
            while any(b"sleep 100" not in Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in every):
                pass
            assert sorted(record.processes_around(tmp_path)) == sorted([jail.pid, jailer.pid])
        finally:
            for each in every:
                os.killpg(each.pid, signal.SIGKILL)


async def test_a_dead_owners_processes_are_found_by_their_user(tmp_path):
    """Those that carry no name and no death signal: Firecracker in its jail."""
    from firebrick.machine.seat import Seats

    directory = tmp_path / "machines" / "dead"
    seats = Seats()
    with seats.take(directory) as seat:
        group = find_groups().make(seat, Limits(), 1 << 28)
    user = ["setpriv", f"--reuid={seat.uid}", f"--regid={seat.gid}", "--clear-groups", "sleep", "60"]
    sleepers = [subprocess.Popen(user), subprocess.Popen(user)]
    group.add(sleepers[0].pid)
    async with asyncio.timeout(5):
        while len(record.processes_of(seat.uid)) < len(sleepers):
            await asyncio.sleep(0.01)
    directory.mkdir(parents=True)
    dead = msgspec.structs.replace(owner.Owner.me("dead"), started=1)
    (directory / owner.FILE).write_bytes(msgspec.json.encode(dead))
    record.Record.of(seat, group).write(directory)
    seat.file.write_text(str(directory))
    assert await asyncio.to_thread(owner.reap, tmp_path / "machines") == ["dead"]
    assert [sleeper.wait(5) for sleeper in sleepers] == [-signal.SIGKILL] * 2
    assert not group.path.exists()
    assert not directory.exists(), "its seat is free"


def test_two_processes_that_race_for_seats_never_share_one(tmp_path):
    program = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from firebrick.machine.seat import Seats
seats, me = Seats(Path(sys.argv[1]), most=64), Path(sys.argv[2])
for turn in range(30):
    with ExitStack() as stack:
        numbers = [stack.enter_context(seats.take(me)).number for _ in range(8)]
        for number in numbers:
            mark = Path(sys.argv[1] + ".marks") / str(number)
            mark.touch(exist_ok=False)
        for number in numbers:
            (Path(sys.argv[1] + ".marks") / str(number)).unlink()
"""
    (tmp_path / "seats.marks").mkdir()
    racing = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "seats"), str(tmp_path / f"none-{i}")])
        for i in range(3)
    ]
    assert [process.wait(60) for process in racing] == [0, 0, 0]


def test_a_seat_of_a_killed_process_is_free_when_its_directory_is_gone(tmp_path):
    from firebrick.machine.seat import Seats

    program = """
import sys, time
from pathlib import Path
from firebrick.machine.seat import Seats
with Seats(Path(sys.argv[1])).take(Path(sys.argv[2])) as seat:
    print(seat.number, flush=True)
    time.sleep(60)
"""
    occupant = tmp_path / "machine"
    occupant.mkdir()
    holding = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "seats"), str(occupant)], stdout=subprocess.PIPE, text=True
    )
    assert holding.stdout.readline() == "0\n"
    seats = Seats(tmp_path / "seats")
    with seats.take(tmp_path) as other:
        assert other.number == 1
    holding.kill()
    holding.wait()
    holding.stdout.close()
    with seats.take(tmp_path) as other:
        assert other.number == 1, "what is left of its machine was not reaped yet"
    occupant.rmdir()
    with seats.take(tmp_path) as other:
        assert other.number == 0
