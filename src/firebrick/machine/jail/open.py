"""Rooms without a jail: for development, and for hosts where something else confines the VMM. The room is the machine's own directory, the VMM runs as who
started it, and nothing keeps it from anything that user may do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path

from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.seat import Seat
from firebrick.machine.spec import MachineSpec


class OpenRoom:
    """A Room. `command` is the VMM and what it is always told."""

    def __init__(self, root: Path, command: Sequence[str]) -> None:
        self.root = root
        self.seat: Seat | None = None
        self.fds: Sequence[int] = ()
        self._command = command

    def share(self, source: Path, name: str) -> None:
        """A name of its own where that can be, so that it does not matter when the other is removed; else a link."""
        target = self.root / name
        try:
            if not source.is_file():
                raise HostError(f"cannot give the machine {source}: it is not a file")
            with contextlib.suppress(OSError):
                os.link(source.resolve(), target)
                return
            target.symlink_to(source.resolve())
        except OSError as error:
            raise HostError(f"cannot give the machine {source}: {error.strerror}") from error

    def own(self, name: str) -> None:
        if not (self.root / name).exists():
            raise HostError(f"cannot give the machine {name}: it is not in {self.root}")

    def prepare(self, name: str, files: Sequence[str]) -> None:  # noqa: ARG002 - the contract's signature
        """The VMM makes the files itself."""
        try:
            (self.root / name).mkdir(mode=0o700)
        except OSError as error:
            raise HostError(f"cannot make {self.root / name}: {error.strerror}") from error

    def closing(self, *made: str) -> AbstractContextManager[None]:  # noqa: ARG002 - the contract's signature
        """Nothing keeps it from anything here."""
        return contextlib.nullcontext()

    def saving(self) -> AbstractAsyncContextManager[None]:
        """Nobody counts here."""
        return contextlib.nullcontext()

    def argv(self, arguments: Sequence[str], *, netns: Path | None = None) -> list[str]:
        inside = ["nsenter", f"--net={netns}", "--"] if netns is not None else []
        return [*inside, *self._command, *arguments]

    async def pid_of(self, starter: int) -> int:
        """Whatever is in front of the VMM becomes it."""
        return starter

    def status(self, returncode: int) -> int:
        return returncode

    def out_of_memory(self) -> bool:
        """Nobody counts here."""
        return False

    def join(self, pid: int) -> None:
        """Nobody counts here."""

    def leave(self) -> None:
        """It lasts as long as its directory."""


class OpenRooms:
    """Makes them. `command` says how the VMM of the machine with this directory is started."""

    def __init__(self, command: Callable[[Path], Sequence[str]]) -> None:
        self._command = command

    @asynccontextmanager
    async def open(self, spec: MachineSpec, directory: Path, seat: Seat | None) -> AsyncIterator[OpenRoom]:  # noqa: ARG002
        yield OpenRoom(directory, self._command(directory))

    @asynccontextmanager
    async def find(self, directory: Path, seat: Seat | None) -> AsyncIterator[OpenRoom]:
        """See Rooms."""
        if seat is not None:
            raise SpecError(
                f"cannot take over the machine in {directory} without a jail: it lives in one",
                hint="Make the driver with the rooms the machine was started with.",
            )
        yield OpenRoom(directory, self._command(directory))
