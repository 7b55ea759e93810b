"""Whose a machine's directory is, and what to do with those whose owner died.

A machine's directory appears with `owner.json` in it, in one step, and carries the machine's id; QEMU carries the id in its name. So whatever a
killed owner left can be found and ended by anyone who has the directory, without a record of anything but what is there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

FILE = "owner.json"
_NAME_PREFIX = "firebrick-"
_KILL_PATIENCE_S = 5.0


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A process of this host: numbers are used again, numbers with a start time and a boot are not."""

    machine: str
    pid: int
    started: int
    boot: str
    created: float

    @classmethod
    def me(cls, machine: str) -> Owner:
        pid = os.getpid()
        return cls(machine=machine, pid=pid, started=_started(pid) or 0, boot=boot_id(), created=time.time())

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and _started(self.pid) == self.started


def boot_id() -> str:
    """Of this host, since it was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def new_id() -> str:
    return secrets.token_hex(6)


def process_name(machine: str) -> str:
    """The name a machine's process carries in its arguments."""
    return _NAME_PREFIX + machine


@contextlib.contextmanager
def claimed(directory: Path, machine: str) -> Iterator[Path]:
    """Make the directory of a machine, with its owner in it from the first moment; remove it, and all in it, at the end.

    Raises FileExistsError when it is there already and not empty."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700)
    try:
        (draft / FILE).write_bytes(msgspec.json.encode(Owner.me(machine)))
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def read(directory: Path) -> Owner | None:
    """Whose directory this is; None where that cannot be known."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None


def reap(machines: Path) -> list[str]:
    """End what dead owners left in the directory `machines`: their processes, then their directories. Returns the ids of the machines.

    Safe at any time and from several processes at once; what has a living owner is not touched. Blocks up to some seconds."""
    gone = []
    for directory in sorted(machines.iterdir()) if machines.is_dir() else []:
        owner = read(directory)
        if owner is not None and not owner.alive:
            _end_processes(owner)
            shutil.rmtree(directory, ignore_errors=True)
            gone.append(owner.machine)
    return gone


def processes_of(machine: str) -> list[int]:
    """The processes that carry the machine's name, as QEMU or as Firecracker is told it, and belong to this user."""
    name = process_name(machine).encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended, or is not ours to see
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid():
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if (b"-name" in argv or b"--id" in argv) and name in argv:
                    found.append(int(entry.name))
    return found


def _end_processes(owner: Owner) -> None:
    deadline = time.monotonic() + _KILL_PATIENCE_S
    while (pids := processes_of(owner.machine)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the host did; None when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
