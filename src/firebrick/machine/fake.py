"""Machines that are not there: a guest in memory behind the driver contract, with faults that can be switched on.

It ships with the library so that whoever builds on it can test without QEMU, and it runs the same conformance tests as the real drivers. Programs
of the guest are Python coroutines (`firebrick.guest.double`); a snapshot keeps the file tree, programs that ran are not in it. What other drivers
do with processes it does with objects: a detached machine is kept by its `Fake`, and adopted from there.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from firebrick.guest.double import GuestDouble, Program
from firebrick.guest.stream import ByteStream
from firebrick.machine.chain import MEMORY
from firebrick.machine.driver import Baseline, Exit, ExitCause, HostUsage, Prepared
from firebrick.machine.errors import MachineError, MachineGoneError
from firebrick.machine.memory import PAGE
from firebrick.machine.ring import Ring
from firebrick.machine.spec import MachineSpec
from firebrick.task import shielded

_LENGTH = struct.Struct("<Q")


@dataclass(slots=True)
class Faults:
    """What goes wrong from now on. `start` is raised by boot and restore, `save` by save; `silent`: agents never say a word; `dead`: machines
    end as soon as they have started; `save_s`: seconds a save takes; `retry`: the driver says that booting again is worth it, so many times;
    `parts`: a save costs the agent's connection; `lost`: what was prepared is gone before it begins."""

    start: MachineError | None = None
    save: MachineError | None = None
    silent: bool = False
    dead: bool = False
    save_s: float = 0.0
    retry: int = 0
    parts: bool = False
    lost: bool = False


@dataclass
class Fake:
    """The driver. `machines` are all that were ever started, in order; `programs` are what their guests have beside the usual ones; `baseline`
    is the kind of driver it is when a difference is to be saved."""

    faults: Faults = field(default_factory=Faults)
    programs: dict[str, Program] = field(default_factory=dict)
    machines: list[FakeMachine] = field(default_factory=list)
    name: str = "fake"
    version: str = "1"
    baseline: Baseline = Baseline.ORIGIN
    released: dict[Path, FakeMachine] = field(default_factory=dict)

    async def facts(self, spec: MachineSpec) -> Mapping[str, str]:  # noqa: ARG002 - the contract's signature
        return {"fake": self.version}

    def patience(self, deadline: float) -> float:
        return deadline

    def answered(self) -> None:
        self.faults.retry = 0

    def stayed_silent(self, seconds: float) -> bool:  # noqa: ARG002 - the contract's signature
        self.faults.retry -= 1
        return self.faults.retry >= 0

    @asynccontextmanager
    async def boot(self, spec: MachineSpec, directory: Path, *, detached: bool = False) -> AsyncIterator[FakeMachine]:  # noqa: ARG002
        self._check()
        async with self._attended(
            FakeMachine(GuestDouble(programs=self.programs), self.faults, self.baseline), directory
        ) as machine:
            yield machine

    @asynccontextmanager
    async def restore(
        self,
        spec: MachineSpec,
        snapshot: Path,
        directory: Path,
        *,
        detached: bool = False,  # noqa: ARG002 - the contract's signature
    ) -> AsyncIterator[FakeMachine]:
        async with self.prepare(spec, snapshot, directory) as prepared:
            yield await prepared.begin()

    @asynccontextmanager
    async def prepare(
        self,
        spec: MachineSpec,  # noqa: ARG002 - the contract's signature
        snapshot: Path,
        directory: Path,
    ) -> AsyncIterator[Prepared[FakeMachine]]:
        self._check()
        image = (snapshot / MEMORY).read_bytes()
        async with AsyncExitStack() as stack:

            async def begin() -> FakeMachine:
                guest = GuestDouble.restore(_unpacked(image), programs=self.programs)
                machine = FakeMachine(guest, self.faults, self.baseline, image)
                return await stack.enter_async_context(self._attended(machine, directory))

            yield Prepared(begin, lambda: self.faults.lost)

    @asynccontextmanager
    async def adopt(self, spec: MachineSpec, directory: Path) -> AsyncIterator[FakeMachine]:  # noqa: ARG002
        machine = self.released.pop(directory, None)
        if machine is None or machine.ended:
            raise MachineGoneError(f"cannot take over the machine in {directory}: it has ended")
        machine.released = False
        await machine.resume()
        async with self._attended(machine, directory):
            yield machine

    def _check(self) -> None:
        if self.faults.start is not None:
            raise self.faults.start

    @asynccontextmanager
    async def _attended(self, machine: FakeMachine, directory: Path) -> AsyncIterator[FakeMachine]:
        machine.guest.silent = self.faults.silent
        if machine not in self.machines:
            self.machines.append(machine)
        if self.faults.dead:
            machine.end(Exit(ExitCause.CRASHED, "it was told to"))
        machine.on_release = lambda: self.released.__setitem__(directory, machine)
        try:
            yield machine
        finally:
            if not machine.released:
                await shielded(machine.close())


class FakeMachine:
    """A VirtualMachine. `guest` is its inside; `end` makes it end in any way; `close` is the driver's."""

    def __init__(self, guest: GuestDouble, faults: Faults, baseline: Baseline, origin: bytes | None = None) -> None:
        self.pid: int | None = None
        self.parts = faults.parts
        self.guest = guest
        self.released = False
        self.on_release: Callable[[], None] = lambda: None
        self._baseline = baseline
        self._image = origin
        self._faults = faults
        self._console = Ring(64 << 10)
        self._running = asyncio.Event()
        self._running.set()
        self._over: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[None] | None = None
        self._watch = asyncio.create_task(self._until_power_off(), name="fake-watch")
        self._console.write(b"a machine in memory\n")

    def end(self, how: Exit) -> None:
        """The machine ends, now, in this way. The first end counts."""
        if not self._over.done():
            self._over.set_result(how)
            self._console.write(f"{how.message}\n".encode())
            self._running.set()
            self._ending = asyncio.create_task(self.guest.close(), name="fake-end")

    @property
    def ended(self) -> bool:
        return self._over.done()

    @property
    def baseline(self) -> Baseline:
        return Baseline.NONE if self._image is None else self._baseline

    async def channel(self) -> ByteStream:
        if self._over.done():
            raise ConnectionRefusedError("the machine has ended")
        return _Gated(self.guest.connect(), self._running)

    async def pause(self) -> None:
        self._check("pause")
        self._running.clear()

    async def resume(self) -> None:
        self._check("resume")
        self._running.set()

    async def save(self, target: Path, *, diff: bool = False) -> None:
        self._check("save")
        await asyncio.sleep(self._faults.save_s)
        if self._faults.save is not None:
            raise self._faults.save
        image = _packed(self.guest.save())
        _write(target / MEMORY, image, (self._image or b"") if diff else None)
        if self._baseline is Baseline.LAST:
            self._image = image

    async def release(self) -> None:
        self.released = True
        self.on_release()

    async def kill(self) -> Exit:
        self.end(Exit(ExitCause.KILLED, "it was killed"))
        return await self.wait()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._over)

    def console(self) -> str:
        return self._console.text()

    def rungs(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return ()

    def usage(self) -> HostUsage:
        return HostUsage(0.0, 0, 0)

    async def close(self) -> None:
        await self.kill()
        self._watch.cancel()
        await asyncio.gather(self._watch, *([self._ending] if self._ending else []), return_exceptions=True)

    def _check(self, operation: str) -> None:
        if self._over.done():
            raise MachineGoneError(f"cannot {operation} the machine: it has ended")

    async def _until_power_off(self) -> None:
        await self.guest.powered_off.wait()
        self.end(Exit(ExitCause.POWEROFF, "the guest powered off"))


def _packed(guest: bytes) -> bytes:
    """As whole pages."""
    image = _LENGTH.pack(len(guest)) + guest
    return image + bytes(-len(image) % PAGE)


def _unpacked(image: bytes) -> bytes:
    (length,) = _LENGTH.unpack_from(image)
    return image[_LENGTH.size : _LENGTH.size + length]


def _write(target: Path, image: bytes, before: bytes | None) -> None:
    """The pages that are not as `before`; all, where that is None."""
    with target.open("xb") as file:
        file.truncate(len(image))
        for at in range(0, len(image), PAGE):
            page = image[at : at + PAGE]
            if before is None or page != before[at : at + PAGE]:
                file.seek(at)
                file.write(page)


class _Gated:
    """A byte stream that stands still while the machine is paused."""

    def __init__(self, stream: ByteStream, running: asyncio.Event) -> None:
        self._stream = stream
        self._running = running

    async def read(self, limit: int) -> bytes:
        data = await self._stream.read(limit)
        await self._running.wait()
        return data

    async def write(self, data: bytes | memoryview) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()
