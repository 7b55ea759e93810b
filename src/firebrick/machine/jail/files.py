"""Files for a jail: seen without a copy where that can be, never changed by what is in there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from firebrick.machine import memory
from firebrick.machine.errors import HostError
from firebrick.machine.seat import Seat


def share(source: Path, target: Path) -> None:
    """`target` becomes a name of the file `source` that everyone who reaches it can read and no jail can write: one more name of the same
    file where it is like that already and on the same file system, else a copy, which shares blocks where the file system can.

    A shared file's owner and mode are never touched: others have it too. Raises HostError."""
    if not link(source, target):
        copy(source, target)


def link(source: Path, target: Path) -> bool:
    """One more name for a file others may read. False where it cannot have one there. Raises HostError for what is no file to share."""
    with _told(source, target):
        facts = source.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise HostError(f"cannot share {source} with a jail: it is no regular file", hint="Name an image file.")
        if is_open_to_read(facts):
            with contextlib.suppress(OSError):
                os.link(source.resolve(), target)
                return True
    return False


def copy(source: Path, target: Path) -> None:
    with _told(source, target):
        memory.copy_sparse(source, target, mode=0o444)


@contextlib.contextmanager
def _told(source: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(
            f"cannot share {source} with a jail as {target}: {error.strerror}",
            hint="Keep images and machines on one file system, with space for a copy.",
        ) from error


def is_open_to_read(facts: os.stat_result) -> bool:
    """Others may read it, and not write it."""
    return facts.st_mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IROTH


Identity = tuple[int, int]
"""Which file it is, whatever its name: device and inode."""


def identity(facts: os.stat_result) -> Identity:
    return facts.st_dev, facts.st_ino


def own(path: Path, seat: Seat, *, shared: Collection[Identity] = ()) -> None:
    """Give a file or directory to the seat's user, and take it from everyone else but root. Not for what is shared: a VMM that runs can have given
    the name of what it was to get to one of the files `shared` with it. Raises HostError."""
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            if identity(facts) in shared:
                raise HostError(f"cannot give {path} to a jail: others have that file too")
            os.chown(f"/proc/self/fd/{fd}", seat.uid, seat.gid)
            os.chmod(f"/proc/self/fd/{fd}", 0o700 if stat.S_ISDIR(facts.st_mode) else 0o600)  # noqa: PTH101
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"cannot give {path} to a jail: {error.strerror}", hint="Jails need root.") from error


def seal(path: Path) -> None:
    """Take a file back from a jail: everyone who reaches it may read it from now on, nobody may open it to write. Raises HostError where somebody
    had it open for that before, and has it still: a VMM that was taken over keeps what it was given."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, 0o444)
        if _is_written(fd):
            raise HostError(f"cannot take {path} back from a jail: it is still open for writing there")
    finally:
        os.close(fd)


def check_unwritten(path: Path) -> None:
    """Before others rely on what is in a file. Raises HostError where somebody has it open for writing."""
    if is_written(path):
        raise HostError(
            f"cannot share {path} with a jail: something on this host has it open for writing",
            hint="End what writes it, or copy the file.",
        )


def is_written(path: Path) -> bool:
    """Whether somebody has the file open for writing, or mapped. Of a file nobody can open for that any more the answer stays what it is."""
    with path.open("rb") as file:
        return _is_written(file.fileno())


def _is_written(fd: int) -> bool:
    """The kernel gives a lease for reading only where nobody writes. When somebody opens it meanwhile to write, a signal asks for the
    lease: one that is ignored, for the usual one would end this process."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # a file system without leases
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
