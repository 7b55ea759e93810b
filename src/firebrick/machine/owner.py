"""Whose a machine's directory is, and what to do with those whose owner died.

A machine's directory appears with `owner.json` in it, in one step, and carries the machine's id; QEMU carries the id in its name, and what is
jailed has its seat, with user and control group, in `jail.json` beside. So whatever a killed owner left can be found and ended by anyone who has
the directory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Container, Iterator
from pathlib import Path

import msgspec

from firebrick.machine.errors import HostError
from firebrick.machine.jail import record
from firebrick.machine.jail.record import start_of
from firebrick.machine.seat import Hold, kept

FILE = "owner.json"
_NAME_PREFIX = "firebrick-"
_KILL_PATIENCE_S = 5.0
_BUSY_PATIENCE_S = 0.2
_DRAFT_S = 60.0


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
        return cls(machine=machine, pid=pid, started=start_of(pid) or 0, boot=boot_id(), created=time.time())

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and start_of(self.pid) == self.started


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
        (draft / FILE).touch(mode=0o600)
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


def reap(machines: Path, *, spare: Container[str] = ()) -> list[str]:
    """End what dead owners left in the directory `machines`: their processes, then their directories. Returns the ids of the machines; those
    in `spare` are left as they are, for somebody to adopt.

    Safe at any time and from several processes at once; what has a living owner is not touched, and what cannot be ended keeps its directory,
    and with it its seat, for the next time. Blocks up to some seconds."""
    gone = []
    for directory in sorted(machines.iterdir()) if machines.is_dir() else []:
        owner = read(directory)
        if owner is None and _is_old_draft(directory):
            shutil.rmtree(directory, ignore_errors=True)
        if owner is not None and not owner.alive and owner.machine not in spare and _end(owner, directory):
            shutil.rmtree(directory, ignore_errors=True)
            gone.append(owner.machine)
    return gone


def _is_old_draft(directory: Path) -> bool:
    """Of somebody who died between making it and writing into it whose it is: a moment, for who lives."""
    with contextlib.suppress(OSError):
        return directory.name.startswith(".") and time.time() - directory.stat().st_mtime > _DRAFT_S
    return False


def _end(owner: Owner, directory: Path) -> bool:
    """Whether nothing of the machine runs any more. What was started before the host was is nobody's: its numbers are others' now."""
    if owner.boot != boot_id():
        return True
    jailed = record.read(directory)
    if jailed is None:
        _end_processes(owner)
        return True
    deadline = time.monotonic() + _BUSY_PATIENCE_S
    while (hold := _end_jailed(jailed, directory)) is Hold.BUSY and time.monotonic() < deadline:
        time.sleep(0.005)
    return hold is not Hold.BUSY


def _end_jailed(jailed: record.Record, directory: Path) -> Hold:
    """What a dead owner had begun to start has its locks for a moment, until it is another program: then, as when something does not end, the
    seat is busy."""
    with kept(Path(jailed.lock), directory) as hold:
        try:
            if hold is Hold.KEPT:
                jailed.reap(directory)
        except HostError:
            return Hold.BUSY
    return hold


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
