"""Rooms of QEMU, by bubblewrap: a root with almost nothing in it, a user, a control group, and namespaces for all that has one.

    bwrap           namespaces; waits for QEMU's end, and is what we start
      bwrap         first process of the process namespace; when it dies, so does all in there
        qemu        by way of prlimit and setpriv: the seat's user, no capability, no way to get one

QEMU finds the files of its machine under the paths they have on the host, so that nothing in its arguments changes. It sees /usr, a few device
nodes, the machine's directory and what it is shown, and no network but the namespace it is given. The directory belongs to root and is
passable for the seat's group alone: QEMU writes to the files it owns in there, and makes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.jail import bwrap, files, starter
from firebrick.machine.jail.group import Group, Groups, find_groups
from firebrick.machine.jail.limits import Limits
from firebrick.machine.jail.record import Record, end_user, ended
from firebrick.machine.seat import Seat
from firebrick.machine.spec import MachineSpec
from firebrick.process import find_program
from firebrick.task import shielded

# Emulated, QEMU keeps up to 1 GiB of translated code.
OVERHEAD_MIB: Final = 1280
_KVM: Final = Path("/dev/kvm")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/urandom")
_SYSTEM: Final = ("/usr", "/etc/ld.so.cache")
_LINKS: Final = ("bin", "lib", "lib64")


@dataclass(frozen=True, slots=True)
class Bubble:
    """The rooms. `groups` None means: those of this host, with the limits they can set."""

    limits: Limits = field(default_factory=Limits)
    groups: Groups | None = None

    @asynccontextmanager
    async def open(self, spec: MachineSpec, directory: Path, seat: Seat | None) -> AsyncIterator[BubbleRoom]:
        """See Rooms. Raises HostError where the host has not what the jail needs."""
        if seat is None:
            raise HostError(f"cannot jail the machine in {directory}: it has no seat")
        if find_program(bwrap.PROGRAM) is None:
            raise HostError("cannot jail machines: bwrap is not on this host", hint="Install the package bubblewrap.")
        groups = self.groups or find_groups()
        group = None
        record = Record.of(seat, groups.of(seat) if groups is not None else None)
        async with ended(record, directory):
            record.write(directory)
            if groups is None:
                await shielded(asyncio.to_thread(end_user, seat.uid))
            else:
                memory = self.limits.memory_bytes(spec, OVERHEAD_MIB)
                group = await shielded(asyncio.to_thread(groups.make, seat, self.limits, memory))
            os.chown(directory, 0, seat.gid)
            directory.chmod(0o710)
            with _gate() as gate:
                yield BubbleRoom(self.limits, spec, directory, seat, group, gate)


@dataclass(slots=True)
class _Gate:
    """What bwrap waits for, and says it has come to: two pipes. Ends are None once they are closed."""

    wait: int | None
    release: int | None
    said: int | None
    says: int | None

    def close(self, *names: str) -> None:
        for name in names:
            fd = getattr(self, name)
            setattr(self, name, None)
            if fd is not None:
                os.close(fd)


class BubbleRoom:
    """One room; made by `Bubble.open`. `root` is the machine's directory."""

    def __init__(
        self, limits: Limits, spec: MachineSpec, directory: Path, seat: Seat, group: Group | None, gate: _Gate
    ) -> None:
        self._limits = limits
        self._group = group
        self._gate = gate
        self._longest_file = limits.longest_file(spec)
        self._shared: set[str] = set()
        self._shown: set[Path] = set()
        self._lent: set[Path] = set()
        self._devices = [(Path(name), Path(name)) for name in _DEVICES]
        self.root = directory
        self.seat: Seat | None = seat
        self._seat = seat

    def share(self, source: Path, name: str) -> None:
        files.share(source, self.root / name)
        self._shared.add(name)

    def own(self, name: str) -> None:
        if name in self._shared:
            raise HostError(f"cannot give {name} to a jailed machine: it is shared")
        files.own(self.root / name, self._seat)

    def show(self, path: Path) -> None:
        """Let the VMM read the file `path` under the path it has on the host. Raises HostError where its mode does not let others."""
        if not path.stat().st_mode & stat.S_IROTH:
            raise HostError(
                f"cannot show {path} to a jailed machine: only its owner can read it",
                hint=f"Let others read it: chmod o+r {path}",
            )
        self._shown.add(path.absolute())

    def lend(self, path: Path) -> None:
        """Let the VMM write the file `path` too, which belongs to the seat's user from now on. Raises HostError."""
        files.own(path, self._seat)
        self._lent.add(path.absolute())

    def show_kvm(self) -> None:
        """Let the VMM use KVM, by a device node of its own. Raises HostError where the machine's directory can have none."""
        node = self.root / "kvm"
        if os.statvfs(self.root).f_flag & os.ST_NODEV:
            raise HostError(
                f"cannot give a jailed machine KVM: the file system of {self.root} is mounted nodev",
                hint="Keep machines on another file system.",
            )
        os.mknod(node, stat.S_IFCHR | 0o600, _KVM.stat().st_rdev)
        files.own(node, self._seat)
        self._devices.append((node, _KVM))

    def argv(self, arguments: Sequence[str], *, netns: Path | None = None) -> list[str]:
        enter = ["nsenter", f"--net={netns}", "--"] if netns is not None else []
        return [
            *enter,
            *(bwrap.PROGRAM, "--die-with-parent", "--clearenv", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", *(() if enter else ("--unshare-net",))),
            *bwrap.view({*map(Path, _SYSTEM), *self._shown}, {*self._lent, self.root}, self._devices, links=_LINKS),
            *("--remount-ro", "/"),
            *("--block-fd", str(self._gate.wait), "--info-fd", str(self._gate.says), "--"),
            *_lowered(self._seat, self._limits, self._longest_file),
            *arguments,
        ]

    @property
    def fds(self) -> Sequence[int]:
        return [fd for fd in (self._gate.wait, self._gate.says) if fd is not None]

    async def pid_of(self, starter_pid: int) -> int:
        """See Room: bwrap waits until it is in its control group, and goes on."""
        self._gate.close("wait", "says")
        first = await asyncio.wait_for(self._first(), 10)
        if self._group is not None:
            for pid in (starter_pid, first):
                self._group.add(pid)
        self._gate.close("release")
        pid = await starter.first_child(first)
        Record.of(self._seat, self._group, pid).write(self.root)
        return pid

    def status(self, returncode: int) -> int:
        return bwrap.own_status(returncode)

    def out_of_memory(self) -> bool:
        return self._group is not None and self._group.kills_for_memory() > 0

    async def _first(self) -> int:
        """What bwrap says of itself: the number of its child, and that it waits. Raises HostError when it ends instead."""
        assert self._gate.said is not None
        said, self._gate.said = self._gate.said, None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(said, "rb", buffering=0)
        )
        try:
            text = await reader.readuntil(b"}")
        except asyncio.IncompleteReadError as error:
            raise HostError("bwrap ended before it had made a jail", hint="Its error output says why.") from error
        finally:
            transport.close()
        return bwrap.child_in(text.decode())


def _lowered(seat: Seat, limits: Limits, longest_file: int) -> list[str]:
    """What bwrap runs to become less than root, and then the VMM."""
    return [
        *("prlimit", f"--nproc={limits.processes}", f"--nofile={limits.open_files}"),
        *(f"--fsize={longest_file}", "--core=0", "--"),
        *("setpriv", f"--reuid={seat.uid}", f"--regid={seat.gid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all", "--"),
    ]


@contextlib.contextmanager
def _gate() -> Iterator[_Gate]:
    wait, release = os.pipe()
    said, says = os.pipe()
    gate = _Gate(wait, release, said, says)
    try:
        yield gate
    finally:
        gate.close("wait", "release", "said", "says")
