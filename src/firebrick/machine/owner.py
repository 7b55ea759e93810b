"""Whose a machine's directory is, and what to do with those whose owner died.

A machine's directory appears with `owner.json` in it, in one step, and carries the machine's id; a VMM without a jail carries the id in its
arguments, and what is jailed has its seat, with user and control group, in `jail.json` beside. So whatever a killed owner left can be found and
ended by anyone who has the directory.

A machine may also change hands: who takes it over, or ends it, holds a lock on its directory while looking whose it is and saying whose it is
now, so there is one winner.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from firebrick import tree
from firebrick.machine import atomic
from firebrick.machine.drafts import draft_name, start_of_me, sweep_drafts
from firebrick.machine.errors import AdoptionError, HostError
from firebrick.machine.jail import record
from firebrick.machine.jail.record import start_of
from firebrick.machine.seat import Hold, kept

FILE = "owner.json"
ADOPTABLE = "machine.json"
"""Where this is in a machine's directory too, the machine may outlive its owner: see `firebrick.machine.record`."""

_NAME_PREFIX = "firebrick-"
_KILL_PATIENCE_S = 5.0
_BUSY_PATIENCE_S = 0.2


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
        return cls(machine=machine, pid=pid, started=start_of_me(pid), boot=boot_id(), created=time.time())

    @classmethod
    def nobody(cls, machine: str) -> Owner:
        """Whose a machine is that was released."""
        return cls(machine=machine, pid=0, started=0, boot=boot_id(), created=time.time())

    @property
    def alive(self) -> bool:
        return self.pid > 0 and self.boot == boot_id() and start_of(self.pid) == self.started

    @property
    def is_me(self) -> bool:
        return self.pid == os.getpid() and self.alive


@functools.cache
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
    """Make the directory of a machine, with its owner in it from the first moment; remove it, and all in it, at the end, unless it has become
    another's by then, or its jail could not be ended: then it is left to `reap`.

    Raises FileExistsError when it is there already and not empty."""
    if not directory.parent.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
    draft = directory.with_name(draft_name(directory.name))
    draft.mkdir(mode=0o700)
    try:
        _write_private(draft / FILE, msgspec.json.encode(Owner.me(machine)))  # a jail sees the directory
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    with _held(directory):
        yield directory


def _write_private(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
        out.write(content)


@contextlib.contextmanager
def taken_over(directory: Path) -> Iterator[Path]:
    """Become the owner of a machine whose owner is dead or has released it; remove the directory at the end, as `claimed` does. One that runs still,
    because who took it over could not go on with it, is nobody's again then.

    Raises AdoptionError where somebody has it: of several who try, one gets it."""
    with _locked(directory):
        owner = read(directory)
        if owner is None:
            raise AdoptionError(f"cannot take over {directory}: no machine is there")
        if owner.alive:
            raise AdoptionError(
                f"cannot take over machine {owner.machine}: process {owner.pid} has it",
                hint="A machine is taken over when its process has ended, or has released it.",
            )
        _write(directory, Owner.me(owner.machine))
    try:
        yield directory
    finally:
        owner = read(directory)
        if owner is not None and owner.is_me and _runs(owner, directory):
            _let_go(directory)
        elif owner is None or owner.is_me:
            _give_up(directory)


@contextlib.contextmanager
def releasing(directory: Path) -> Iterator[None]:
    """The machine is nobody's from the end of the context on, unless that raises. Raises HostError before it begins where that cannot be written."""
    nobody = msgspec.json.encode(Owner.nobody(directory.name))
    with contextlib.ExitStack() as stack, atomic.prepared(directory / FILE, nobody):
        yield
        stack.enter_context(_locked(directory))  # open again when it is written


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    try:
        yield
    finally:
        owner = read(directory)
        if owner is None or owner.is_me:
            _give_up(directory)


def _give_up(directory: Path) -> None:
    """Remove it, unless its jail could not be ended: then the directory is how the next `reap` finds what is left, and nobody adopts that."""
    if record.read(directory) is None:
        _remove(directory)
        return
    with contextlib.suppress(OSError):
        (directory / ADOPTABLE).unlink(missing_ok=True)
    _let_go(directory)


def _let_go(directory: Path) -> None:
    """Where that cannot be noted it is nobody's when this process has ended."""
    with contextlib.suppress(HostError, AdoptionError), releasing(directory):
        pass


def _remove(directory: Path) -> None:
    """As a draft: whoever is killed in the middle of it leaves one."""
    draft = directory.with_name(draft_name(directory.name))
    with contextlib.suppress(OSError):
        directory = directory.rename(draft)
    tree.remove(directory)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Raises AdoptionError where the directory is gone."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AdoptionError(f"cannot take over {directory}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(directory: Path, owner: Owner) -> None:
    atomic.write(directory / FILE, msgspec.json.encode(owner))


def read(directory: Path) -> Owner | None:
    """Whose directory this is; None where that cannot be known."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None


def adoptable(machines: Path) -> list[Path]:
    """The machines in the directory `machines` that run, were made to outlive their owner, and have."""
    return [directory for directory in _directories(machines) if _may_be_adopted(directory)]


def reap(machines: Path, *, spare_adoptable: bool = False) -> list[str]:
    """End what dead owners left in the directory `machines`: their processes, then their directories, drafts of directories too. Returns the
    ids of the machines.

    Safe at any time and from several processes at once. What has a living owner is not touched, nor with `spare_adoptable` what `adoptable`
    finds; what cannot be ended keeps its directory, and with it its seat, for the next time. Blocks up to some seconds."""
    gone = []
    for directory in _directories(machines):
        owner = read(directory)
        if owner is None or owner.alive or (spare_adoptable and _may_be_adopted(directory)):
            continue
        with contextlib.suppress(AdoptionError), _locked(directory):  # nobody takes it over meanwhile
            owner = read(directory)
            if owner is not None and not owner.alive and _end(owner, directory):
                _remove(directory)
                gone.append(owner.machine)
    sweep_drafts(machines)
    return gone


def _directories(machines: Path) -> list[Path]:
    """Those of machines that were finished: the others have no process yet."""
    return sorted(entry for entry in machines.iterdir() if entry.name[0] != ".") if machines.is_dir() else []


def _may_be_adopted(directory: Path) -> bool:
    owner = read(directory)
    return owner is not None and not owner.alive and (directory / ADOPTABLE).exists() and _runs(owner, directory)


def _runs(owner: Owner, directory: Path) -> bool:
    if owner.boot != boot_id():
        return False
    jailed = record.read(directory)
    return jailed.runs if jailed is not None else bool(processes_of(owner.machine))


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
