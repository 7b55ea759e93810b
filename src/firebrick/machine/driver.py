"""The contract between the library and what runs machines of one kind.

A driver turns a spec into a live virtual machine with one duplex byte stream to its agent, and no more: exec, files and identity are the
library's, over that stream, the same for all drivers. Every method may be called from one task at a time unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from firebrick.guest.client import ByteStream
from firebrick.machine.spec import MachineSpec


class ExitCause(StrEnum):
    """How a virtual machine ended."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    PANIC = "panic"
    KILLED = "killed"
    OUT_OF_MEMORY = "out-of-memory"
    CRASHED = "crashed"
    SECCOMP = "seccomp"
    FILE_LIMIT = "file-limit"
    BAD_CONFIGURATION = "bad-configuration"


@dataclass(frozen=True, slots=True)
class Exit:
    cause: ExitCause
    message: str


class Baseline(StrEnum):
    """To what a driver can write the difference of a machine's memory: nothing, the snapshot it was restored from, or the last one that was
    taken of it (the one it was restored from, until then)."""

    NONE = "none"
    ORIGIN = "origin"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class HostUsage:
    """What the machine costs the host: CPU seconds so far, resident bytes, and of these the bytes shared with nobody."""

    cpu_s: float
    resident_bytes: int
    private_bytes: int


class VirtualMachine(Protocol):
    """A live virtual machine, made by a driver's `boot` or `restore`, which also end it."""

    pid: int | None
    parts: bool
    """Whether a save ends the connection to the agent on this machine too. The library gives it up before and connects again after."""

    @property
    def baseline(self) -> Baseline:
        """What `save` with `diff` would write the difference to, if it were asked now."""

    async def channel(self) -> ByteStream:
        """Connect to the agent's byte stream. One connection at a time; a new one ends the old one."""

    async def pause(self) -> None:
        """Stop the virtual processors. Idempotent."""

    async def resume(self) -> None:
        """Let them go on. Idempotent."""

    async def save(self, target: Path, *, diff: bool = False) -> None:
        """Write memory, device state and disk into the empty directory `target`. The machine must be paused, stays paused, and can
        be resumed after: a snapshot never changes its source, and its files are final. When this is cancelled it has stopped writing by
        the time it raises.

        With `diff` the file `memory` is as long as ever, and has data only where memory differs from the baseline: a page that became zero is
        data, a page that did not change is a hole. All else is complete. When this raises, a baseline of the kind LAST is lost."""

    async def release(self) -> None:
        """Let go of a machine that was started detached: it runs on with nobody attending to it, the context it was made in does not end it
        any more, and this object is of no further use. Idempotent."""

    async def kill(self) -> Exit:
        """End it now. Idempotent; safe in any state, also after it ended by itself. Returns how it ended."""

    def rungs(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Ways to end it that are gentler than `kill` and need no agent, gentlest first. Each asks and returns."""

    async def wait(self) -> Exit:
        """Wait until it has ended. May be called by any number of tasks."""

    def console(self) -> str:
        """The last 64 KiB the guest wrote to its console; still there after the end."""

    def usage(self) -> HostUsage: ...


M_co = TypeVar("M_co", bound=VirtualMachine, covariant=True)


@dataclass(frozen=True, slots=True)
class Prepared(Generic[M_co]):
    """A machine that is all there and does not run yet. `begin` makes it run, once; `ended` says whether it is lost already, and so of no use."""

    begin: Callable[[], Awaitable[M_co]]
    ended: Callable[[], bool]


class Driver(Protocol):
    """What runs machines of one kind."""

    name: str

    async def facts(self, spec: MachineSpec) -> Mapping[str, str]:
        """What a machine made now would depend on: versions, machine type, accelerator, processor. A snapshot is restored only where
        these are what they were when its machine was started. Cheap after the first call."""

    def patience(self, deadline: float) -> float:
        """How long the library shall wait for the agent of a machine that has just been started: `deadline`, or less where the driver is not
        sure yet that it starts machines the right way. Seconds."""

    def answered(self) -> None:
        """The library says: the agent of a machine `boot` has made answered."""

    def stayed_silent(self, seconds: float) -> bool:
        """The library says: it did not. True where the driver has changed its mind about how to boot machines, and another try is worth it."""

    def boot(
        self, spec: MachineSpec, directory: Path, *, detached: bool = False
    ) -> AbstractAsyncContextManager[VirtualMachine]:
        """Start a machine from nothing. `directory` is empty, belongs to this machine alone and outlives it; the driver's files go there.
        On exit from the context the machine is dead and every host resource it held is gone, whatever happened inside, unless it was released.

        A `detached` machine does not die with this process; all that is needed to `adopt` it is in its directory. Raises HostError where the host
        lacks something, SpecError for what this driver cannot be asked."""

    def restore(
        self, spec: MachineSpec, snapshot: Path, directory: Path, *, detached: bool = False
    ) -> AbstractAsyncContextManager[VirtualMachine]:
        """Start a machine from a directory `save` has filled. Any number may be restored from one snapshot at once; they share its
        files copy-on-write and never change them. The machine runs when this yields."""

    def prepare(
        self, spec: MachineSpec, snapshot: Path, directory: Path
    ) -> AbstractAsyncContextManager[Prepared[VirtualMachine]]:
        """As `restore`, up to where the machine would begin to run. It needs the files of `snapshot` no more when this yields."""

    def adopt(self, spec: MachineSpec, directory: Path) -> AbstractAsyncContextManager[VirtualMachine]:
        """Attend to the machine that was started detached with this `directory`, by a process that is gone or has released it. It runs when
        this yields, also where it was found paused, and is from then on as if it had been started here; how it ends may be known less well.

        Raises MachineGoneError when it has ended: its directory is left to the caller."""
