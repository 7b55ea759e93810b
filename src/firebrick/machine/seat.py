"""Seats: the numbers of this host from which everything is named that a machine has of its own outside its directory.

A seat is a number; its user and group, its network namespace, its control group and its addresses follow from it. A process that holds a seat
holds a lock on the seat's file, which the kernel opens when the process dies, however it dies. The file says whose directory the seat was taken
for: as long as that directory is there, something of its machine may be too, and the seat is given to nobody else before it was reaped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError

SEATS: Final = Path("/run/firebrick/seats")
# Above what systemd gives to containers (up to 1,879,048,191), and what distributions give to users as subordinate ids.
FIRST_ID: Final = 1_900_000_000
MOST: Final = 16_384
JAILED: Final = "jail.json"
"""Where this is in the directory of a seat's occupant, something may live in the seat: see `firebrick.machine.jail.record`."""

_PREFIX: Final = "fb"


@dataclass(frozen=True, slots=True)
class Seat:
    """`number` is 0 and up. `uid` and `gid` are one number, and nobody else's on this host. `file` is the one that is locked."""

    number: int
    uid: int
    gid: int
    file: Path | None = None

    @property
    def name(self) -> str:
        """Of the network namespace, the control group and the host's end of the link: at most 15 bytes."""
        return f"{_PREFIX}{self.number}"


class Seats:
    """The seats of this host. `directory` is shared by every node on it; `first_id` is the uid and gid of seat 0."""

    def __init__(self, directory: Path = SEATS, *, first_id: int = FIRST_ID, most: int = MOST) -> None:
        self._directory = directory
        self._first_id = first_id
        self._most = most
        self._held: dict[Path, int] = {}

    @contextmanager
    def take(self, occupant: Path | None = None) -> Iterator[Seat]:
        """A seat of one's own for the machine whose directory is `occupant`, free again when this is left, unless the machine's jail could not be
        ended. A seat that is taken before its machine
        is known has no occupant until `occupy` says so.

        Raises HostError when every seat is taken, or when they cannot be kept on this host."""
        with self._lock(occupant and occupant.absolute()) as (number, fd):
            file = self._directory / str(number)
            with self._holding(file, fd):
                try:
                    yield Seat(number, self._first_id + number, self._first_id + number, file)
                finally:
                    if self._held.get(file) == fd and not _is_lived_in(fd):  # else it was left, or could not be ended
                        os.ftruncate(fd, 0)

    @contextmanager
    def take_over(self, seat: Seat, occupant: Path) -> Iterator[Hold]:
        """Keep the seat of a machine that lives on without its owner, as `kept` does, until this is left or `leave` is called."""
        assert seat.file is not None
        with _kept(seat.file, occupant) as (hold, fd):
            if hold is Hold.KEPT:
                with self._holding(seat.file, fd):
                    yield hold
            else:
                yield hold

    def leave(self, seat: Seat) -> None:
        """Its machine lives on: the seat stays the machine's, and whoever takes that over can take over the seat from now on. For its holder."""
        fd = self._held.pop(seat.file) if seat.file in self._held else None
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def occupy(self, seat: Seat, occupant: Path) -> None:
        """Say whose directory the seat is for. For its holder."""
        with (self._directory / str(seat.number)).open("r+b", buffering=0) as file:
            file.truncate(0)
            file.write(os.fsencode(occupant.absolute()))

    @contextmanager
    def vacant(self, number: int) -> Iterator[Seat | None]:
        """The seat of this number if nobody has it, kept from others as long as the context; else None. For removing what is left in it."""
        try:
            fd = os.open(self._directory / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # no seats are kept here: nothing says whose this is
            yield None
            return
        try:
            id_ = self._first_id + number
            yield Seat(number, id_, id_, self._directory / str(number)) if _is_free(fd) else None
        finally:
            os.close(fd)

    @contextmanager
    def _holding(self, file: Path, fd: int) -> Iterator[None]:
        self._held[file] = fd
        try:
            yield
        finally:
            if self._held.get(file) == fd:
                del self._held[file]

    @contextmanager
    def _lock(self, occupant: Path | None) -> Iterator[tuple[int, int]]:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._find(occupant)
        except OSError as error:
            raise HostError(
                f"cannot keep seats in {self._directory}: {error.strerror}",
                hint="Jails and network namespaces need root.",
            ) from error
        if found is None:
            raise HostError(
                f"all {self._most} seats of this host are taken",
                hint="End machines, or start a node to reap what dead ones left.",
            )
        try:
            yield found
        finally:
            os.close(found[1])

    def _find(self, occupant: Path | None) -> tuple[int, int] | None:
        """The first free seat, locked and marked; None where there is none."""
        for number in range(self._most):
            fd = os.open(self._directory / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if _is_free(fd):
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"" if occupant is None else os.fsencode(occupant), 0)
                    return number, fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        return None


class Hold(Enum):
    """What became of an attempt to keep a seat: it is kept; somebody has it, who lives and takes care of it; it is not this occupant's any more."""

    KEPT = auto()
    BUSY = auto()
    LOST = auto()


@contextmanager
def kept(file: Path, occupant: Path) -> Iterator[Hold]:
    """Keep everyone from the seat whose file this is, to end or to adopt what a dead owner left in it for the machine whose directory is
    `occupant`."""
    with _kept(file, occupant) as (hold, _):
        yield hold


@contextmanager
def _kept(file: Path, occupant: Path) -> Iterator[tuple[Hold, int]]:
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, IsADirectoryError):
        yield Hold.LOST, -1
        return
    try:
        if not _locked(fd):
            yield Hold.BUSY, fd
        else:
            yield Hold.KEPT if _occupant(fd) == occupant.absolute() else Hold.LOST, fd
    finally:
        os.close(fd)


def _is_free(fd: int) -> bool:
    """Lock it, if nobody holds it and its last occupant has gone for good."""
    if not _locked(fd):
        return False
    last = _occupant(fd)
    return last is None or not os.path.lexists(last)


def _is_lived_in(fd: int) -> bool:
    last = _occupant(fd)
    return last is not None and os.path.lexists(last / JAILED)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _occupant(fd: int) -> Path | None:
    text = os.fsdecode(os.pread(fd, 4096, 0))
    return Path(text) if text else None
