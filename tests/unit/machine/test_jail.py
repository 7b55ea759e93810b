"""The parts of a jail that touch nothing: command lines, limits, and whose status is whose."""

import contextlib
import errno
import mmap
import os
import signal
from pathlib import Path

import pytest

from firebrick.machine import Drive, MachineSpec
from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.jail import bwrap, jailer
from firebrick.machine.jail.bubble import BubbleRoom
from firebrick.machine.jail.files import is_open_to_read, is_written
from firebrick.machine.jail.gate import Gate
from firebrick.machine.jail.group import Group, find_groups, settings
from firebrick.machine.jail.jailer import Jailer, JailerRoom
from firebrick.machine.jail.limits import IoLimit, Limits
from firebrick.machine.seat import Seat

SEAT = Seat(7, 2_000_007, 2_000_007)
SPEC = MachineSpec(kernel=Path("/k"), initrd=Path("/i"), memory_mib=256, scratch_mib=1024)
MIB = 1 << 20


def test_limits_are_written_as_the_kernel_reads_them():
    limits = Limits(cpus=1.5, processes=99, io={"8:0": IoLimit(bytes_per_s=1000), "259:1": IoLimit(operations_per_s=5)})
    assert settings(limits, 5 * MIB) == {
        "memory.max": ("5242880",),
        "memory.swap.max": ("0",),
        "memory.oom.group": ("1",),
        "pids.max": ("99",),
        "cpu.max": ("150000 100000",),
        "io.max": ("259:1 rbps=max wbps=max riops=5 wiops=5", "8:0 rbps=1000 wbps=1000 riops=max wiops=max"),
    }
    assert settings(Limits(), MIB).keys() == {"memory.max", "memory.swap.max", "memory.oom.group", "pids.max"}


@pytest.mark.parametrize(
    "wrong", [{"cpus": 0}, {"memory_mib": 0}, {"processes": 0}, {"file_bytes": 0}, {"open_files": -1}]
)
def test_a_limit_of_nothing_is_refused(wrong):
    with pytest.raises(SpecError):
        Limits(**wrong)
    with pytest.raises(SpecError):
        IoLimit(bytes_per_s=0)


def test_memory_and_files_are_bounded_by_what_the_spec_says(tmp_path):
    assert Limits().memory_bytes(SPEC, 64) == 320 * MIB
    assert Limits(memory_mib=100).memory_bytes(SPEC, 64) == 100 * MIB
    assert Limits().longest_file(SPEC) == (1024 * 17 // 16 + 64) * MIB
    assert Limits(file_bytes=3).longest_file(SPEC) == 3
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 4096 * MIB)
    spec = MachineSpec(kernel=Path("/k"), initrd=Path("/i"), drives=(Drive(name="d", path=disk, read_only=False),))
    assert Limits().longest_file(spec) == (4096 + 64) * MIB


def test_the_hierarchy_of_version_2_is_found_wherever_it_is(tmp_path):
    def mountinfo(kind: str) -> str:
        return f"29 42 0:26 / {tmp_path} rw,relatime - {kind} {kind} rw\n"

    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    found = find_groups(mountinfo("cgroup2"))
    assert (found.mount, found.missing) == (tmp_path, ())
    assert found.of(SEAT) == Group(tmp_path / "firebrick" / "fb7")
    (tmp_path / "cgroup.controllers").write_text("hugetlb memory\n")
    assert find_groups(mountinfo("cgroup2")).missing == ("cpu", "io", "pids")
    assert find_groups(mountinfo("cgroup")) is None


def test_kills_for_memory_are_counted(tmp_path):
    assert Group(tmp_path).kills_for_memory() == 0
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 1\n")
    assert Group(tmp_path).kills_for_memory() == 1


def test_memory_is_limited_anew_where_it_is_limited(tmp_path):
    group = Group(tmp_path)
    group.limit_memory(MIB)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "memory.max").write_text("1")
    group.limit_memory(MIB)
    assert (tmp_path / "memory.max").read_text() == str(MIB)


@pytest.mark.parametrize("wrong", [[], [OSError]])
async def test_there_is_more_memory_during_a_save_however_it_ends(tmp_path, wrong):
    limit = tmp_path / "memory.max"
    limit.write_text(str(5 * MIB))
    made = Jailer(Path("/opt/firecracker-v1.12.1"), Path("/opt/jailer-v1.12.1"))
    room = JailerRoom(made, tmp_path, SEAT, Group(tmp_path), 1000, 5 * MIB)
    with contextlib.suppress(OSError):
        async with room.saving():
            assert limit.read_text() == str(40 * MIB)
            for error in wrong:
                raise error
    assert limit.read_text() == str(5 * MIB)


def room_of_jailer(directory: Path) -> JailerRoom:
    made = Jailer(Path("/opt/firecracker-v1.12.1"), Path("/opt/jailer-v1.12.1"), Limits(open_files=300))
    return JailerRoom(made, directory, SEAT, Group(Path("/sys/fs/cgroup/firebrick/fb7")), 1000)


def test_the_command_line_of_the_jailer():
    room = room_of_jailer(Path("/m/abc"))
    assert room.root == Path("/m/abc/jail/firecracker-v1.12.1/abc/root")
    argv = room.argv(["--api-sock", "api.sock"], netns=Path("/run/netns/fb7"))
    bubble, own, firecracker = (" ".join(argv)).split(" -- ")
    assert firecracker == "--api-sock api.sock"
    assert own == (
        "/opt/jailer-v1.12.1 --id abc "
        "--exec-file /opt/firecracker-v1.12.1 --uid 2000007 --gid 2000007 --chroot-base-dir /m/abc/jail "
        "--netns /run/netns/fb7 --cgroup-version 2 --parent-cgroup firebrick/fb7 "
        "--resource-limit fsize=1000 --resource-limit no-file=300"
    )
    assert bubble.startswith("bwrap --cap-add ALL --unshare-pid --unshare-ipc --unshare-uts --clearenv ")
    words = bubble.split()
    assert "--die-with-parent" not in words, "a machine whose owner died can be adopted"
    assert pairs(words, "--ro-bind") == ["/opt/firecracker-v1.12.1", "/opt/jailer-v1.12.1", "/run/netns/fb7"]
    assert pairs(words, "--bind") == ["/sys/fs/cgroup"]
    assert pairs(words, "--dev-bind") == ["/dev/null", "/m/abc"]
    assert "--unshare-net" not in words
    alone = room.argv([])
    assert "--netns" not in alone
    assert "--unshare-net" in alone[: alone.index("--")], "without a network of its own it would have the host's"


@pytest.mark.parametrize("id", ["a_b", "a" * 65, "a.b"])
def test_an_id_the_jailer_does_not_take_is_the_seats(id):  # noqa: A002
    assert "fb7" in room_of_jailer(Path("/m") / id).argv([])


@pytest.mark.parametrize("name", ["../x", "a/b", "", "/x", ".."])
def test_nothing_is_put_outside_a_room(name):
    room = room_of_jailer(Path("/m/abc"))
    with pytest.raises(HostError, match="plain file name"):
        room.share(Path("/etc/passwd"), name)
    with pytest.raises(HostError, match="plain file name"):
        room.own(name)


def room_of_bubble(tmp_path: Path) -> BubbleRoom:
    limits = Limits(processes=50, open_files=300)
    return BubbleRoom(limits, limits.longest_file(SPEC), tmp_path, SEAT, Gate(10, 11, 12, 13), detached=False)


def pairs(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_the_command_line_of_a_bubble(tmp_path):
    shown, secret = tmp_path / "image", tmp_path / "secret"
    shown.touch(mode=0o644)
    secret.touch(mode=0o600)
    room = room_of_bubble(tmp_path)
    room.show(shown)
    with pytest.raises(HostError, match="only its owner can read it"):
        room.show(secret)
    argv = room.argv(["qemu", "-M", "microvm"])
    assert argv[0] == "bwrap"
    assert {
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--clearenv",
    } < set(argv)
    assert set(pairs(argv, "--ro-bind")) == {"/usr", "/etc/ld.so.cache", str(shown)}
    assert pairs(argv, "--bind") == [str(tmp_path)]
    assert set(pairs(argv, "--dev-bind")) == {"/dev/null", "/dev/zero", "/dev/urandom"}
    assert str(tmp_path.parent) in pairs(argv, "--dir")
    assert argv.index("--remount-ro") > argv.index("--bind")
    assert list(room.fds) == [10, 13]
    assert argv[argv.index("prlimit") :] == [
        *("prlimit", "--nproc=50", "--nofile=300", f"--fsize={(1024 * 17 // 16 + 64) * MIB}", "--core=0", "--"),
        *("setpriv", "--reuid=2000007", "--regid=2000007", "--clear-groups", "--no-new-privs", "--inh-caps=-all"),
        *("--bounding-set=-all", "--", "qemu", "-M", "microvm"),
    ]


def test_a_bubble_is_made_in_the_namespace_it_is_given(tmp_path):
    argv = room_of_bubble(tmp_path).argv(["qemu"], netns=Path("/run/netns/fb7"))
    assert argv[:4] == ["nsenter", "--net=/run/netns/fb7", "--", "bwrap"]
    assert "--unshare-net" not in argv


def test_a_status_is_the_vmms_own():
    assert [bwrap.own_status(code) for code in (0, 1, 137, 139, 255, -9)] == [0, 1, -9, -11, 255, -9]
    assert [jailer.own_status(code) for code in (0, 1, 137, 139, 148, 157, 159, -9)] == [
        *(0, 1, -signal.SIGKILL, -signal.SIGSEGV, 148, 157, -signal.SIGSYS, -9)
    ]


def test_what_bwrap_says_is_read():
    assert bwrap.child_in('{\n    "child-pid": 5654,\n    "net-namespace": 4026532186\n}') == 5654
    with pytest.raises(HostError):
        bwrap.child_in("{}")


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o644, True), (0o444, True), (0o600, False), (0o646, False), (0o640, False)]
)
def test_a_file_is_linked_into_a_jail_only_where_others_may_read_and_not_write(tmp_path, mode, fine):
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert is_open_to_read(file.stat()) is fine


@pytest.mark.parametrize(("mode", "written"), [("rb", False), ("r+b", True), ("ab", True)])
def test_who_has_a_file_open_for_writing_is_noticed(tmp_path, mode, written):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    assert not is_written(path)
    with path.open(mode):
        assert is_written(path) == written
    assert not is_written(path)


def test_a_mapping_that_can_be_written_is_noticed_too(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 4096)
    with mapping:
        assert is_written(path)
    assert not is_written(path)


def test_what_comes_when_the_mounts_were_made_is_copied(tmp_path, monkeypatch):
    """From another file system: there is no name to be had, and nothing is mounted any more."""
    room = room_of_jailer(tmp_path)
    room.root.mkdir(parents=True)
    image = tmp_path / "image"
    image.write_bytes(b"an image")
    image.chmod(0o444)

    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    room.share(image, "first.img")
    argv = room.argv(["--api-sock", "api.sock"])
    assert [str(image), str(room.root / "first.img")] == argv[argv.index(str(image)) :][:2]
    room.share(image, "second.img")
    assert (room.root / "second.img").read_bytes() == b"an image"
