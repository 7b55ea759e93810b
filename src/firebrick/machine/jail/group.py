"""Control groups, version 2: what a machine may take, and who belongs to it.

    /sys/fs/cgroup/firebrick/fb7    the group of the machine in seat 7

Every limit is written here, into a group that is ready before anything runs in it; jails only move their process into it. A host that has its
controllers in hierarchies of version 1 has groups without limits at best: those can still be listed and killed as a whole. Whether that is enough,
the caller says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.jail.limits import IoLimit, Limits
from firebrick.machine.seat import Seat

CONTROLLERS: Final = ("cpu", "io", "memory", "pids")
PARENT: Final = "firebrick"
_PERIOD_US: Final = 100_000
_PATIENCE_S: Final = 5.0
_HINT: Final = (
    "Boot the host with one hierarchy of cgroup version 2 (systemd.unified_cgroup_hierarchy=1), and run as root."
)


@dataclass(frozen=True, slots=True)
class Group:
    """A group there is. What is asked of one that is gone is empty, or nothing."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process into it. Raises HostError; nothing when the process has ended."""
        with contextlib.suppress(ProcessLookupError), _told(f"move process {pid} into {self.path}"):
            (self.path / "cgroup.procs").write_text(str(pid))

    def processes(self) -> list[int]:
        with contextlib.suppress(OSError):
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        return []

    def kills_for_memory(self) -> int:
        """How many of its processes the kernel has killed for want of memory; 0 also where memory is not limited."""
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
            return int(events.get("oom_kill", 0))
        return 0

    def limit_memory(self, size: int) -> None:
        """Limit it to `size` bytes; nothing where memory is not limited. What it has beyond that is taken from it, the pages of files first. Raises
        HostError."""
        file = self.path / "memory.max"
        if file.exists():
            with _told(f"limit the memory of {self.path}"):
                file.write_text(str(size))

    def end(self) -> None:
        """Kill all in it and remove it. Blocks up to some seconds. Idempotent. Raises HostError where something cannot be killed."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.path.exists():
            self._kill()
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HostError(
                        f"cannot remove the control group {self.path}: {error.strerror}; in it are {self.processes()}",
                        hint="A process that does not end when it is killed waits for a disk or for the kernel.",
                    ) from error
                time.sleep(0.001)

    def _kill(self) -> None:
        if not self.processes():
            return
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:  # before Linux 5.14
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Groups:
    """The hierarchy of this host: where it is mounted, and which of our controllers it has."""

    mount: Path
    controllers: frozenset[str]

    @property
    def missing(self) -> tuple[str, ...]:
        """What cannot be limited here."""
        return tuple(name for name in CONTROLLERS if name not in self.controllers)

    def of(self, seat: Seat) -> Group:
        """The group of a seat, whether it is there or not."""
        return Group(self.mount / PARENT / seat.name)

    def make(self, seat: Seat, limits: Limits, memory_bytes: int) -> Group:
        """A new group with these limits; what a dead owner left in the seat's is ended first. Raises HostError."""
        group = self.of(seat)
        group.end()
        with _told(f"make the control group {group.path}"):
            group.path.parent.mkdir(exist_ok=True)
            for parent in (self.mount, group.path.parent):
                self._enable(parent)
            group.path.mkdir()
        try:
            self._limit(group, limits, memory_bytes)
        except BaseException:
            group.end()
            raise
        return group

    def _enable(self, parent: Path) -> None:
        file = parent / "cgroup.subtree_control"
        wanted = self.controllers - set(file.read_text().split())
        if wanted:
            file.write_text(" ".join(f"+{name}" for name in sorted(wanted)))

    def _limit(self, group: Group, limits: Limits, memory_bytes: int) -> None:
        for name, lines in settings(limits, memory_bytes).items():
            if name.partition(".")[0] not in self.controllers:
                continue
            if name == "memory.swap.max" and not (group.path / name).exists():
                continue  # a kernel that does not count swap
            for line in lines:
                with _told(f"limit the control group {group.path}: write {line!r} to {name}"):
                    (group.path / name).write_text(line)


def find_groups(mountinfo: str | None = None) -> Groups | None:
    """The hierarchy of version 2, with however many controllers; None where none is mounted."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            mount = Path(place.split()[4])
            with contextlib.suppress(OSError):
                there = (mount / "cgroup.controllers").read_text().split()
                return Groups(mount, frozenset(CONTROLLERS) & frozenset(there))
    return None


def need_groups() -> Groups:
    """A hierarchy that can limit all we limit. Raises HostError, with what is missing."""
    groups = find_groups()
    if groups is None:
        raise HostError("cannot limit machines: no cgroup of version 2 is mounted on this host", hint=_HINT)
    if groups.missing:
        raise HostError(
            f"cannot limit machines: the cgroup of version 2 at {groups.mount} has no controller {', '.join(groups.missing)}",
            hint=_HINT,
        )
    return groups


def settings(limits: Limits, memory_bytes: int) -> Mapping[str, tuple[str, ...]]:
    """What is written into which file of a group, one write each. Pure."""
    files: dict[str, tuple[str, ...]] = {
        "memory.max": (str(memory_bytes),),
        "memory.swap.max": ("0",),
        "memory.oom.group": ("1",),  # half a VMM is none
        "pids.max": (str(limits.processes),),
    }
    if limits.cpus is not None:
        files["cpu.max"] = (f"{max(1000, round(limits.cpus * _PERIOD_US))} {_PERIOD_US}",)
    if limits.io:
        files["io.max"] = tuple(f"{device} {_rates(limit)}" for device, limit in sorted(limits.io.items()))
    return files


def _rates(limit: IoLimit) -> str:
    size = "max" if limit.bytes_per_s is None else limit.bytes_per_s
    count = "max" if limit.operations_per_s is None else limit.operations_per_s
    return f"rbps={size} wbps={size} riops={count} wiops={count}"


@contextlib.contextmanager
def _told(operation: str) -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        raise
    except OSError as error:
        raise HostError(f"cannot {operation}: {error.strerror}", hint=_HINT) from error
