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
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.jail import bwrap, files, starter
from firebrick.machine.jail import gate as gates
from firebrick.machine.jail.gate import Gate
from firebrick.machine.jail.group import Group, Groups, find_groups
from firebrick.machine.jail.limits import Limits
from firebrick.machine.jail.record import Record, end_user, ended
from firebrick.machine.jail.record import read as record_of
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
    async def open(
        self, spec: MachineSpec, directory: Path, seat: Seat | None, *, detached: bool = False
    ) -> AsyncIterator[BubbleRoom]:
        """See Rooms. What lives in a room that is `detached` does not die with this process. Raises HostError where the host has not what the jail
        needs."""
        if seat is None:
            raise HostError(f"cannot jail the machine in {directory}: it has no seat")
        if find_program(bwrap.PROGRAM) is None:
            raise HostError("cannot jail machines: bwrap is not on this host", hint="Install the package bubblewrap.")
        groups = self.groups or find_groups()
        record = Record.of(seat, groups.of(seat) if groups is not None else None)
        async with AsyncExitStack() as stack:
            gate = stack.enter_context(gates.made())
            room = BubbleRoom(self.limits, self.limits.longest_file(spec), directory, seat, gate, detached=detached)
            await stack.enter_async_context(ended(record, directory, lambda: room.left))
            record.write(directory)
            if groups is None:
                await shielded(asyncio.to_thread(end_user, seat.uid))
            else:
                memory = self.limits.memory_bytes(spec, OVERHEAD_MIB)
                room.group = await shielded(asyncio.to_thread(groups.make, seat, self.limits, memory))
            os.chown(directory, 0, seat.gid)
            directory.chmod(0o710)
            yield room

    @asynccontextmanager
    async def find(self, directory: Path, seat: Seat | None) -> AsyncIterator[BubbleRoom]:
        """See Rooms."""
        record = record_of(directory)
        if seat is None or record is None:
            raise SpecError(
                f"cannot take over the machine in {directory} with its jail: it has none",
                hint="Make the driver without rooms, as the machine's was.",
            )
        room = BubbleRoom(self.limits, 0, directory, seat, Gate(None, None, None, None), detached=True)
        room.group = None if record.group is None else Group(Path(record.group))
        async with ended(record, directory, lambda: room.left, found=True):
            yield room


class BubbleRoom:
    """One room; made by `Bubble`. `root` is the machine's directory."""

    def __init__(
        self, limits: Limits, longest_file: int, directory: Path, seat: Seat, gate: Gate, *, detached: bool
    ) -> None:
        self.group: Group | None = None
        self.left = False
        self._limits = limits
        self._gate = gate
        self._longest_file = longest_file
        self._detached = detached
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

    def saving(self) -> AbstractAsyncContextManager[None]:
        """See Room. QEMU writes its devices alone; its memory is read from outside."""
        return nullcontext()

    def argv(self, arguments: Sequence[str], *, netns: Path | None = None) -> list[str]:
        enter = ["nsenter", f"--net={netns}", "--"] if netns is not None else []
        return [
            *enter,
            *(bwrap.PROGRAM, *(() if self._detached else ("--die-with-parent",)), "--clearenv"),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", *(() if enter else ("--unshare-net",))),
            *bwrap.view({*map(Path, _SYSTEM), *self._shown}, {*self._lent, self.root}, self._devices, links=_LINKS),
            *("--remount-ro", "/"),
            *(*self._gate.arguments(), "--"),
            *_lowered(self._seat, self._limits, self._longest_file),
            *arguments,
        ]

    @property
    def fds(self) -> Sequence[int]:
        return self._gate.given

    async def pid_of(self, starter_pid: int) -> int:
        """See Room: bwrap waits until it is in its control group, and goes on."""
        first = await asyncio.wait_for(self._gate.first(), 10)
        if self.group is not None:
            for pid in (starter_pid, first):
                self.group.add(pid)
        self._gate.open()
        pid = await starter.first_child(first)
        Record.of(self._seat, self.group, pid).write(self.root)
        return pid

    def status(self, returncode: int) -> int:
        return bwrap.own_status(returncode)

    def out_of_memory(self) -> bool:
        return self.group is not None and self.group.kills_for_memory() > 0

    def leave(self) -> None:
        """See Room. For one that was made detached."""
        self.left = True


def _lowered(seat: Seat, limits: Limits, longest_file: int) -> list[str]:
    """What bwrap runs to become less than root, and then the VMM."""
    return [
        *("prlimit", f"--nproc={limits.processes}", f"--nofile={limits.open_files}"),
        *(f"--fsize={longest_file}", "--core=0", "--"),
        *("setpriv", f"--reuid={seat.uid}", f"--regid={seat.gid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all", "--"),
    ]
