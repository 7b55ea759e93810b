"""The files of a machine: into its room before it starts, out of it for a snapshot. They block; call them in a thread.

A VMM that a guest has broken out into can do what it likes in its room. So nothing there is opened through a link, and what leaves it is looked at
where the VMM cannot reach it any more."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from firebrick.machine import memory
from firebrick.machine.errors import HostError, SnapshotError
from firebrick.machine.firecracker import config
from firebrick.machine.jail import files
from firebrick.machine.jail.room import Room
from firebrick.machine.spec import MachineSpec

TABLE: Final = "disks.json"
_MOST_TABLE: Final = 1 << 20


class Placed(msgspec.Struct, frozen=True):
    """A disk of a machine: `file` is its name in the room, `source` where it came from. One that is `written` is in each snapshot."""

    file: str
    source: str
    written: bool


Disks = Mapping[str, Placed]


def place_new(room: Room, spec: MachineSpec, empty: Path) -> Disks:
    """All a machine boots from. A drive it may write is the file itself, under a second name. Raises HostError."""
    room.share(spec.kernel, config.KERNEL)
    room.share(spec.initrd, config.INITRD)
    _copy(empty, room, config.SCRATCH)
    disks = {"scratch": Placed(config.SCRATCH, str(empty), written=True)}
    if spec.root is not None:
        disks["root"] = place(room, config.ROOT, spec.root, written=False)
    for drive in spec.drives:
        id = config.drive_id(spec, drive.name)  # noqa: A001 - the API's word
        disks[id] = place(room, config.drive_file(id), drive.path, written=not drive.read_only)
    return disks


def place(room: Room, file: str, source: Path, *, written: bool) -> Placed:
    """One disk. Raises HostError."""
    if written:
        try:
            os.link(source, room.root / file)
        except OSError as error:
            raise HostError(
                f"cannot let the machine write the drive {source}: {error.strerror}",
                hint="Keep images that machines write on the file system machines are on.",
            ) from error
        room.own(file)
    else:
        room.share(source, file)
    return Placed(file, str(source), written)


def place_saved(room: Room, snapshot: Path, *, with_memory: bool) -> Disks:
    """All a machine is restored from: what it reads it shares with the snapshot, what it writes is its own copy. Raises HostError, SnapshotError."""
    disks = _read_table(snapshot)
    room.share(snapshot / config.STATE, config.STATE)
    if with_memory:
        room.share(snapshot / config.MEMORY, config.MEMORY)
    for disk in disks.values():
        if disk.written:
            _copy(snapshot / disk.file, room, disk.file)
        else:
            room.share(Path(disk.source), disk.file)
    return disks


def collect(room: Room, saved: Path, disks: Disks, target: Path) -> None:
    """Fill the directory `target` with a snapshot: what Firecracker has written into `saved`, which is in the room and goes, and the disks.

    The machine is paused. Raises SnapshotError, OSError."""
    with _taken_back(saved) as directory:
        for name in (config.STATE, config.MEMORY):
            _move(directory, name, target / name)
    with contextlib.suppress(OSError):  # a directory that is not empty is removed by who has made it
        saved.rmdir()
    for disk in disks.values():
        if disk.written:
            _copy_out(room.root / disk.file, target / disk.file)
    (target / TABLE).write_bytes(msgspec.json.encode(disks))


def _read_table(snapshot: Path) -> Disks:
    try:
        with (snapshot / TABLE).open("rb") as file:
            disks = msgspec.json.decode(file.read(_MOST_TABLE), type=dict[str, Placed])
    except (OSError, msgspec.MsgspecError) as error:
        raise SnapshotError(f"cannot restore {snapshot}: {TABLE} is damaged", hint="Take the snapshot anew.") from error
    if any("/" in disk.file or disk.file.startswith(".") for disk in disks.values()):
        raise SnapshotError(f"cannot restore {snapshot}: {TABLE} names a file outside", hint="Take the snapshot anew.")
    return disks


def _copy(source: Path, room: Room, file: str) -> None:
    target = room.root / file
    try:
        memory.copy_sparse(source, target, mode=0o600)
    except OSError as error:
        raise HostError(f"cannot copy {source} for the machine: {error.strerror}") from error
    room.own(file)


def _copy_out(source: Path, target: Path, directory: int | None = None) -> None:
    with _opened(source, directory) as fd:
        memory.copy_sparse(Path(f"/proc/self/fd/{fd}"), target, mode=0o444)


@contextlib.contextmanager
def _taken_back(directory: Path) -> Iterator[int]:
    """A directory the VMM had, itself and not what a link leads to: nothing in it changes any more."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o700)
        yield fd
    finally:
        os.close(fd)


def _move(directory: int, name: str, target: Path) -> None:
    """The file becomes ours: its name is out of the VMM's reach first, then it is looked at."""
    try:
        os.rename(name, target, src_dir_fd=directory)
    except OSError:  # another file system
        _copy_out(Path(name), target, directory)
    facts = target.lstat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        target.unlink()
        raise SnapshotError(f"cannot save the machine: {name} is not the file Firecracker was told to write")
    os.chown(target, os.geteuid(), os.getegid())
    target.chmod(0o444)  # who may reach it is said by its directory
    if files.is_written(target):
        target.unlink()
        raise SnapshotError(f"cannot save the machine: {name} is still open for writing in it")


@contextlib.contextmanager
def _opened(path: Path, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SnapshotError(f"cannot save the machine: {path.name} is not a file any more")
        yield fd
    finally:
        os.close(fd)
