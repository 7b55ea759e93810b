"""What is known of a jailed machine outside its jail: `jail.json` in its directory.

A machine's directory belongs to root, so nothing in a jail can change this. It is enough to find the machine again after its owner died: to end
it, or to adopt it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec

from firebrick.machine import atomic
from firebrick.machine.errors import HostError
from firebrick.machine.jail.group import Group
from firebrick.machine.seat import JAILED, Seat
from firebrick.task import shielded

FILE = JAILED
CHROOTS = "jail"
"""The directory of chroots in a machine's own."""

_PATIENCE_S = 5.0
_TELLING = frozenset({b"--bind", b"--dev-bind", b"--chroot-base-dir"})
"""How bubblewrap and the jailer are told of a machine's directory."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`seat` is its number and `lock` the seat's file, `uid` whom its processes belong to, `group` the control group's path where there is one.
    `pid` is the VMM's own process, and `started` when that was started, in ticks since the host was; 0 until it runs. `memory` is what the group is
    limited to, in bytes, where an owner may raise that limit for a while, and die meanwhile."""

    seat: int
    uid: int
    gid: int
    lock: str
    group: str | None
    pid: int = 0
    started: int = 0
    memory: int | None = None

    @classmethod
    def of(cls, seat: Seat, group: Group | None, pid: int = 0, memory: int | None = None) -> Record:
        return cls(
            seat=seat.number,
            uid=seat.uid,
            gid=seat.gid,
            lock=str(seat.file or ""),
            group=str(group.path) if group else None,
            pid=pid,
            started=start_of(pid) or 0,
            memory=memory,
        )

    def write(self, directory: Path) -> None:
        """In one step. Raises HostError."""
        atomic.write(directory / FILE, msgspec.json.encode(self))

    @property
    def runs(self) -> bool:
        """Whether the VMM this speaks of is still there."""
        return bool(self.started) and start_of(self.pid) == self.started

    def reap(self, directory: Path) -> None:
        """As `end`, for a machine whose owner was killed at any moment: also what was about to become its VMM, and is root's still."""
        _end_all(lambda: processes_around(directory))
        self._end_all()
        end_user(self.uid)
        _forget(directory)

    def end(self, directory: Path) -> None:
        """Kill everything of the machine, remove its control group, and then this record. Blocks up to some seconds. Raises HostError: the record
        is there still then, and with it the machine's directory and seat are nobody else's until it was reaped.

        With a group that takes no look at other processes, however many the host has."""
        self._end_all()
        _forget(directory)

    def _end_all(self) -> None:
        if self.group is not None:
            Group(Path(self.group)).end()
        else:
            end_user(self.uid)


@asynccontextmanager
async def ended(
    record: Record, directory: Path, is_left: Callable[[], bool], *, found: bool = False
) -> AsyncIterator[None]:
    """All of the machine is ended after the context, unless it `is_left` to live on; with `found`, also what another process has started around it.
    What went wrong in the context is told first: a note on it says what did not end."""
    end = record.reap if found else record.end
    try:
        yield
    except BaseException as error:
        if not is_left():
            try:
                await shielded(asyncio.to_thread(end, directory))
            except HostError as other:
                error.add_note(f"Then: {other}. {other.hint}")
        raise
    if not is_left():
        await shielded(asyncio.to_thread(end, directory))


def read(directory: Path) -> Record | None:
    """Of a machine in a jail that was not ended; None where there is none, or nobody can read it."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def _forget(directory: Path) -> None:
    try:
        (directory / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot remove {directory / FILE}: {error.strerror}", hint="The next reap removes it."
        ) from error


def start_of(pid: int) -> int | None:
    """When a process started, in ticks since the host did; None when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def end_user(uid: int) -> None:
    """Kill all processes of a seat's user: it is nobody's but the seat's. Raises HostError where one does not end."""
    _end_all(lambda: processes_of(uid))


def _end_all(find: Callable[[], list[int]]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while pids := find():
        if time.monotonic() > deadline:
            raise HostError(f"cannot end the processes {pids} of a jail: they do not die")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def processes_around(directory: Path) -> list[int]:
    """The living processes that were told to make a jail of the machine's directory. Not all that name it: who lists it, or adopts it, does too."""
    names = {os.fsencode(directory), os.fsencode(directory / CHROOTS)}
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and _is_told((entry / "cmdline").read_bytes().split(b"\0"), names):
                found.append(int(entry.name))
    return [pid for pid in found if start_of(pid) is not None]


def _is_told(argv: Sequence[bytes], names: AbstractSet[bytes]) -> bool:
    return any(option in _TELLING and value in names for option, value in pairwise(argv))


def processes_of(uid: int) -> list[int]:
    """The living processes that have this user as their real one."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and _user_of(entry) == uid and start_of(int(entry.name)) is not None:
                found.append(int(entry.name))
    return found


def _user_of(process: Path) -> int:
    """Not the owner of the directory: that is root's where a process keeps itself from being dumped."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    return -1  # it has just ended
