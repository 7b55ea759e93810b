"""A node that kills itself: it leads a machine's whole life, and at a point of it the process is gone, as by `kill -9`. The point is a name in
`POINTS`, or a number: then it is the so many-th change to the outside world. It says `over` when it comes to the end alive, and how many changes
it has made.

    python -m tests.conformance.victim      forks one for each line of input, and answers with how it ended and what it said"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from firebrick import machine
from firebrick.guest.client import Agent
from firebrick.guest.connection import Connection
from firebrick.machine import MachineSpec, Snapshot, disk, owner, trust
from firebrick.machine import snapshot as snapshots
from firebrick.machine.fake import FakeMachine
from firebrick.machine.firecracker import Firecracker, FirecrackerMachine, disks, vmm
from firebrick.machine.jail.group import Group, Groups
from firebrick.machine.jail.jailer import Jailer, JailerRoom
from firebrick.machine.jail.record import Record
from firebrick.machine.network import slot
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.slot import Slot
from firebrick.machine.qemu import QemuMachine, start
from firebrick.machine.seat import Seats
from firebrick.machine.standby import Standby
from firebrick.machine.stock import Stock
from tests.conformance.drivers import driver_of, is_firecracker

# Where a life can end: an attribute of something, and when: as it is called, when it has returned (a context: was entered), when a context is left.
POINTS: dict[str, tuple[Any, str, str]] = {
    "before the directory": (owner, "claimed", "before"),
    "in the draft of the directory": (owner.Owner, "me", "before"),
    "with the directory": (owner, "claimed", "after"),
    "before the disk": (disk, "add_layer", "before"),
    "with a disk shared": (disk, "share", "after"),
    "before QEMU": (start, "spawn", "before"),
    "with QEMU": (start, "spawn", "after"),
    "before the channel": (QemuMachine, "channel", "before"),
    "with the channel": (QemuMachine, "channel", "after"),
    "before the hello": (Connection, "greet", "before"),
    "with the hello": (Connection, "greet", "after"),
    "with the identity": (Agent, "connect", "after"),
    "before quiesce": (Agent, "quiesce", "before"),
    "quiesced": (Agent, "quiesce", "after"),
    "paused": (QemuMachine, "pause", "after"),
    "before save": (QemuMachine, "save", "before"),
    "disk sealed": (QemuMachine, "_seal_disk", "after"),
    "memory saved": (QemuMachine, "save", "after"),
    "before the digests": (snapshots.Draft, "keep", "before"),
    "before the snapshot is in place": (snapshots.Draft, "_put", "before"),
    "with the snapshot in place": (snapshots.Draft, "_put", "after"),
    "before it is noted as verified": (trust, "trust", "before"),
    "while it is restored from a difference": (Snapshot, "make_whole", "after"),
    "before poweroff": (Agent, "poweroff", "before"),
    "with poweroff said": (Agent, "poweroff", "after"),
    "before kill": (QemuMachine, "kill", "before"),
    "with all killed": (QemuMachine, "kill", "after"),
    "before QEMU is let go": (start, "spawn", "leaving"),
    "before the directory is removed": (owner, "claimed", "leaving"),
    "with one that stands by": (Stock, "full", "after"),
    "before that one begins": (Standby, "_alive", "after"),
}
# What only a jailed machine in a network of its own comes by.
JAILED: dict[str, tuple[Any, str, str]] = {
    "with a seat": (Seats, "take", "after"),
    "with the table of the firewall": (HostNetwork, "ready", "after"),
    "with a namespace": (slot, "visit", "before"),
    "with a slot": (Slot, "apply", "after"),
    "before the record of the jail": (Record, "write", "before"),
    "with the record of the jail": (Record, "write", "after"),
    "with a control group without limits": (Groups, "_limit", "before"),
    "with a control group": (Groups, "make", "after"),
    "with files in the chroot": (JailerRoom, "argv", "before"),
    "before the jailer is known": (JailerRoom, "pid_of", "before"),
    "with the jailer known": (JailerRoom, "pid_of", "after"),
    "with a Firecracker that answers": (vmm.Vmm, "ready", "after"),
    "loaded": (Firecracker, "_load", "after"),
    "with more memory": (Group, "limit_memory", "after"),
    "before its files are the owner's": (disks, "collect", "before"),
    "before the room is left": (Jailer, "open", "leaving"),
    "before the slot is removed": (Slot, "_remove", "before"),
    "before the seat is left": (Seats, "take", "leaving"),
}
_OF_FIRECRACKER: dict[tuple[Any, str], tuple[Any, str]] = {
    (disk, "add_layer"): (disks, "place_saved"),
    (disk, "share"): (disks, "_copy"),
    (start, "spawn"): (vmm, "spawn"),
    (QemuMachine, "_seal_disk"): (disks, "collect"),
}
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod", "subprocess.Popen")
_CONNECTIONS = ("socket.bind", "socket.connect")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(thing: Any, name: str, when: str) -> None:
    """From now on, whoever gets there dies."""
    static = inspect.getattr_static(thing, name)
    real = getattr(thing, name)
    wrapped = _deadly(real, when)
    setattr(thing, name, staticmethod(wrapped) if isinstance(static, classmethod) else wrapped)


def _deadly(real: Callable[..., Any], when: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*args: Any, **options: Any) -> Any:
        if when == "before":
            die()
        result = real(*args, **options)
        if hasattr(result, "__aenter__"):
            return _deadly_context(result, when)
        if hasattr(result, "__enter__"):
            return _deadly_plain_context(result, when)
        if inspect.isawaitable(result):
            return _then_die(result)
        die()
        return None

    return call


async def _then_die(result: Any) -> None:
    await result
    die()


@asynccontextmanager
async def _deadly_context(context: Any, when: str) -> Any:
    async with context as entered:
        if when == "after":
            die()
        try:
            yield entered
        finally:
            die()


@contextmanager
def _deadly_plain_context(context: Any, when: str) -> Any:
    with context as entered:
        if when == "after":
            die()
        try:
            yield entered
        finally:
            die()


class Counter:
    """Kills at the so many-th change to the outside."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or event in _CONNECTIONS or (event == "open" and self._writes(arguments)):
            self.count += 1
            if self.count == self.at:
                die()

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        path, _, flags = arguments
        return isinstance(path, str | bytes | os.PathLike) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


async def live(home: Path, driver: str, template: str) -> None:
    """Start, use, save, restore from a difference, fork, stop, have one stand by and take it."""
    made = driver_of(driver, home)
    spec = MachineSpec(kernel=home / "kernel", initrd=home / "initrd")
    making = machine.restore(Snapshot.load(Path(template)), made, home=home) if template else None
    async with making or machine.launch(spec, made, home=home) as first:
        await first.run(["true"])
        full = first.base or await first.snapshot(home / "snapshots" / "full")
        async with machine.restore(full, made, home=home) as second:
            difference = await second.snapshot(home / "snapshots" / "difference", full)
        async with machine.restore(difference, made, home=home) as third, third.fork() as fork:
            await fork.run(["true"])
            await third.stop(deadline=60)
        async with machine.standby(full, made, home=home, count=1) as ahead:
            await ahead.full()
            async with ahead.restore() as fourth:
                await fourth.run(["true"])


def _point(point: str, driver: str) -> tuple[Any, str, str]:
    """Where that is for machines of this driver."""
    thing, name, when = POINTS.get(point) or JAILED[point]
    if is_firecracker(driver):
        thing, name = _OF_FIRECRACKER.get((thing, name), (thing, name))
    if thing is QemuMachine:
        thing = FirecrackerMachine if is_firecracker(driver) else FakeMachine if driver == "fake" else QemuMachine
    return thing, name, when


def main(home: Path, driver: str, template: str, point: str) -> None:
    counter = Counter(int(point) if point.isdigit() else 0)
    if point in POINTS or point in JAILED:
        arm(*_point(point, driver))
    elif not point.isdigit():
        raise ValueError(point)
    sys.addaudithook(counter)
    asyncio.run(live(home, driver, template))
    print("over", counter.count)  # noqa: T201


def serve() -> None:
    """Modules are loaded once: that takes longer than a life."""
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)  # noqa: T201


def _forked(arguments: list[str]) -> tuple[int, str]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.closerange(3, 64)
        status = 1
        try:
            main(Path(arguments[0]), *arguments[1:4])
            sys.stdout.flush()
            status = 0
        except Exception:  # noqa: BLE001 - whoever started it is told
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.strip()


if __name__ == "__main__":
    serve()
