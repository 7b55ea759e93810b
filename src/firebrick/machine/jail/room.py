"""The contract between a driver and the jail its VMM is started in.

A room is a directory the VMM sees as its root or its working directory, and a way to start it there. The driver puts files into it under short
relative names, asks for the arguments, starts them through `firebrick.process`, and talks to sockets that appear in `root`. The order is: share
and own, then `argv`, then `pid_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol

from firebrick.machine.seat import Seat
from firebrick.machine.spec import MachineSpec


class Room(Protocol):
    """Where one VMM lives. `seat` is None where it runs as whoever started it."""

    root: Path
    seat: Seat | None

    def share(self, source: Path, name: str) -> None:
        """Let the VMM read the file `source` as `name`, without copying it and without being able to change it. Raises HostError."""

    def own(self, name: str) -> None:
        """Make the file or directory `name`, which is in the room already, the VMM's to read and write."""

    def prepare(self, name: str, files: Sequence[str]) -> None:
        """Make the directory `name` with these empty files in it, which the VMM writes; it makes no others there. Also while it runs. Raises
        HostError."""

    def closing(self, *made: str) -> AbstractContextManager[None]:
        """What lets the VMM make its sockets, which are called `made`, in `root`. After the context it makes nothing there, and nowhere else.

        Raises HostError where it has made something else meanwhile: to be ended at once."""

    def saving(self) -> AbstractAsyncContextManager[None]:
        """As long as the context there is room for what the host keeps of the files the VMM writes, which counts as the VMM's memory. Its guest
        stands still. Raises HostError."""

    def argv(self, arguments: Sequence[str], *, netns: Path | None = None) -> list[str]:
        """The whole command line that starts the VMM with `arguments` in this room, in the network namespace `netns` where there is one."""

    @property
    def fds(self) -> Sequence[int]:
        """What the command line needs to inherit, beside what the VMM does. Complete after `argv`."""

    async def pid_of(self, starter: int) -> int:
        """The VMM's own process, where `starter` is the process that `argv` became. The VMM may be held back until this is called: always
        call it. Raises HostError where it has ended before it started."""

    def status(self, returncode: int) -> int:
        """The VMM's own status (negative: a signal), from that of the process that `argv` became."""

    def out_of_memory(self) -> bool:
        """Whether the kernel killed in here for want of memory. To be asked before the room is left."""

    def join(self, pid: int) -> None:
        """Count what the process `pid` uses as the machine's, and end it with the room."""

    def leave(self) -> None:
        """What lives in the room lives on when the room is left, to be found by `Rooms.find`. Idempotent."""


class Rooms(Protocol):
    """What makes rooms. All may be called by any number of tasks."""

    def open(self, spec: MachineSpec, directory: Path, seat: Seat | None) -> AbstractAsyncContextManager[Room]:
        """A room for the machine whose own directory is `directory`; the room is inside it. On exit every process in the room is dead and its
        control group and mounts are gone; the files go with the directory. Also what a killed owner left of the seat is ended first."""

    def find(self, directory: Path, seat: Seat | None) -> AbstractAsyncContextManager[Room]:
        """The room that another process has left, with the machine in it that lives on; from now on as if it had been opened here. The `seat` is
        the one it was opened with, and held. Raises SpecError for a machine that is not in a room of this kind."""
