"""Rooms of Firecracker's own jailer: a chroot, a user, a control group, and namespaces for mounts, processes, IPC, names and network.

    bwrap           namespaces for processes, IPC, names and mounts; waits for the end, and is what we start
      bwrap         first process of the process namespace
        jailer      chroot, device nodes, control group, network namespace, limits, user; then it becomes
        firecracker

The jailer's own `--new-pid-ns` would leave us without Firecracker's status. bwrap also mounts into the chroot what is on another file system and
cannot have one more name there: in a mount namespace that ends with the machine, so no mount is ever left on the host. Firecracker outlives a
killed owner: what is in `jail.json` then finds it, to be adopted or ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.jail import bwrap, files, starter, walls
from firebrick.machine.jail.group import PARENT, Group, Groups, need_groups
from firebrick.machine.jail.limits import Limits
from firebrick.machine.jail.record import CHROOTS, Record, ended
from firebrick.machine.jail.record import read as record_of
from firebrick.machine.seat import Seat
from firebrick.machine.spec import MachineSpec
from firebrick.process import find_program
from firebrick.task import shielded

OVERHEAD_MIB: Final = 64
# So many times a machine's memory is there while it is saved: the kernel begins to hold back at 15 hundredths of it, and must let all of it be written.
_ROOM: Final = 8
_NAME_PART: Final = "firecracker"
_ID: Final = re.compile(r"[a-zA-Z0-9-]{1,64}")
_NULL: Final = Path("/dev/null")
# Statuses Firecracker exits with by itself, among those that otherwise tell of a signal.
_OWN_STATUSES: Final = range(148, 158)


@dataclass(frozen=True, slots=True)
class Jailer:
    """The rooms. `firecracker` and `jailer` are the programs, of one release. `groups` None means: one that can limit everything, or HostError;
    give others where machines may run without limits, which production must not."""

    firecracker: Path
    jailer: Path
    limits: Limits = field(default_factory=Limits)
    groups: Groups | None = None

    @asynccontextmanager
    async def open(self, spec: MachineSpec, directory: Path, seat: Seat | None) -> AsyncIterator[JailerRoom]:
        """See Rooms. Raises HostError where the host has not what the jailer needs."""
        if seat is None:
            raise HostError(f"cannot jail the machine in {directory}: it has no seat")
        self._check()
        groups = self.groups or need_groups()
        memory = self.limits.memory_bytes(spec, OVERHEAD_MIB)
        room = JailerRoom(self, directory, seat, groups.of(seat), self.limits.longest_file(spec), memory)
        record = Record.of(seat, groups.of(seat), memory=memory)
        async with ended(record, directory, lambda: room.left):
            record.write(directory)
            await shielded(asyncio.to_thread(groups.make, seat, self.limits, memory))
            room.root.mkdir(parents=True)
            room.root.chmod(0o700)
            yield room

    @asynccontextmanager
    async def find(self, directory: Path, seat: Seat | None) -> AsyncIterator[JailerRoom]:
        """See Rooms. The programs may be of another release by now, and have other names."""
        record = record_of(directory)
        roots = list((directory / CHROOTS).glob("*/*/root"))
        if seat is None or record is None or record.group is None or len(roots) != 1:
            raise SpecError(
                f"cannot take over the machine in {directory} with its jail: it has none",
                hint="Make the driver without rooms, as the machine's was.",
            )
        room = JailerRoom(self, directory, seat, Group(Path(record.group)), 0, record.memory)
        room.root, room._is_built = roots[0], True  # noqa: SLF001 - its maker
        async with ended(record, directory, lambda: room.left):
            yield room

    def _check(self) -> None:
        if _NAME_PART not in self.firecracker.name:
            raise HostError(
                f"cannot jail {self.firecracker}: the jailer runs only programs with {_NAME_PART} in their name",
                hint="Rename it, or link it under another name.",
            )
        if find_program(bwrap.PROGRAM) is None:
            raise HostError("cannot jail machines: bwrap is not on this host", hint="Install the package bubblewrap.")
        for program in (self.firecracker, self.jailer):
            if not program.is_absolute() or find_program(program) is None:
                raise HostError(
                    f"cannot jail machines: there is no program {program}", hint="Unpack Firecracker's release."
                )


class JailerRoom:
    """One room; made by `Jailer.open`. `root` is the chroot's."""

    def __init__(
        self,
        jailer: Jailer,
        directory: Path,
        seat: Seat,
        group: Group,
        longest_file: int,
        memory: int | None = None,
    ) -> None:
        self._jailer = jailer
        self._directory = directory
        self._base = directory / CHROOTS
        self._id = directory.name if _ID.fullmatch(directory.name) else seat.name
        self._group = group
        self._mount = group.path.parent.parent
        self._longest_file = longest_file
        self._memory = memory
        self.seat: Seat | None = seat
        self._seat = seat
        self.root = self._base / jailer.firecracker.name / self._id / "root"
        self.fds: Sequence[int] = ()
        self.left = False
        self._shared: set[str] = set()
        self._files: set[files.Identity] = set()
        self._bound: dict[Path, Path] = {}
        self._is_built = False

    def share(self, source: Path, name: str) -> None:
        """See Room. The file gets one more name in the chroot, or is mounted there; one that others may not read is copied, and so is one that comes
        when the mounts have been made."""
        target = self._inside(name)
        self._shared.add(name)
        with contextlib.suppress(OSError):  # told below
            self._files.add(files.identity(source.stat()))
        if not files.link(source, target):
            if files.is_open_to_read(source.stat()) and not self._is_built:
                target.touch(exist_ok=False)
                self._bound[target] = source.resolve()
            else:
                files.copy(source, target)

    def own(self, name: str) -> None:
        if name in self._shared:
            raise HostError(f"cannot give {name} to a jailed machine: it is shared")
        files.own(self._inside(name), self._seat, shared=self._files)

    def prepare(self, name: str, files: Sequence[str]) -> None:
        """See Room."""
        directory = self._inside(name)
        try:
            directory.mkdir(mode=0o710)
            os.chown(directory, 0, self._seat.gid)
            for file in files:
                (directory / file).touch(mode=0o600, exist_ok=False)
                os.chown(directory / file, self._seat.uid, self._seat.gid)
        except OSError as error:
            raise HostError(
                f"cannot make {name} in a jail: {error.strerror}", hint="See that there is space."
            ) from error

    def closing(self, *made: str) -> AbstractContextManager[None]:
        return walls.rising(self.root, self._seat, frozenset(made))

    @asynccontextmanager
    async def saving(self) -> AsyncIterator[None]:
        """See Room. A group that is full of the pages of earlier snapshots would let Firecracker write half a megabyte a second: the kernel holds who
        dirties more than a fifth of his memory back until that is on the disk, and does not know that these files are his, as root made them."""
        try:
            await self._limit_memory(_ROOM)
            yield
        finally:
            await self._limit_memory(1)

    async def _limit_memory(self, times: int) -> None:
        """To what it may have, so many times."""
        if self._memory is not None:
            await shielded(asyncio.to_thread(self._group.limit_memory, times * self._memory))

    def argv(self, arguments: Sequence[str], *, netns: Path | None = None) -> list[str]:
        self._is_built = True
        return [
            *(bwrap.PROGRAM, "--cap-add", "ALL", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--clearenv"),
            *(() if netns is not None else ("--unshare-net",)),  # the jailer alone would stay in the host's network
            *self._view(netns),
            "--",
            str(self._jailer.jailer),
            *("--id", self._id),
            *("--exec-file", str(self._jailer.firecracker)),
            *("--uid", str(self._seat.uid), "--gid", str(self._seat.gid)),
            *("--chroot-base-dir", str(self._base)),
            *(("--netns", str(netns)) if netns is not None else ()),
            # No --cgroup: so it moves itself into the group that is there already, with all its limits.
            *("--cgroup-version", "2", "--parent-cgroup", f"{PARENT}/{self._seat.name}"),
            *("--resource-limit", f"fsize={self._longest_file}"),
            *("--resource-limit", f"no-file={self._jailer.limits.open_files}"),
            "--",
            *arguments,
        ]

    async def pid_of(self, starter_pid: int) -> int:
        """See Room: waits until the jailer has changed its user, the last it does before it becomes Firecracker."""
        pid = await starter.first_child(await starter.first_child(starter_pid))
        await starter.becomes(pid, self._seat.uid)
        Record.of(self._seat, self._group, pid, self._memory).write(self._directory)
        return pid

    def status(self, returncode: int) -> int:
        return own_status(returncode)

    def out_of_memory(self) -> bool:
        return self._group.kills_for_memory() > 0

    def join(self, pid: int) -> None:
        self._group.add(pid)

    def leave(self) -> None:
        self.left = True

    def _view(self, netns: Path | None) -> Iterator[str]:
        """What the jailer needs until it has changed its root."""
        programs = {self._jailer.jailer, self._jailer.firecracker, *(() if netns is None else (netns,))}
        yield from bwrap.view(programs, {self._mount}, [(_NULL, _NULL), (self._directory, self._directory)])
        for target, source in self._bound.items():
            yield from ("--ro-bind", str(source), str(target))

    def _inside(self, name: str) -> Path:
        if Path(name).name != name or name in ("", ".."):
            raise HostError(f"cannot put {name!r} into a jail: it is no plain file name")
        return self.root / name


def own_status(returncode: int) -> int:
    """Firecracker's status from bwrap's. Pure."""
    return returncode if returncode in _OWN_STATUSES else bwrap.own_status(returncode)
