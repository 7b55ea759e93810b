"""The driver: machines under Firecracker, booted from nothing or restored from snapshots, each in a room of its own."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from firebrick.machine import disk
from firebrick.machine.driver import Prepared
from firebrick.machine.errors import BootError, HostError, MachineGoneError, SnapshotError, SpecError
from firebrick.machine.firecracker import config, disks, record
from firebrick.machine.firecracker.api import FirecrackerError
from firebrick.machine.firecracker.config import Backend, Load
from firebrick.machine.firecracker.found import found
from firebrick.machine.firecracker.pages import Pager, Pages, Served, noted, watched
from firebrick.machine.firecracker.record import Record
from firebrick.machine.firecracker.settings import FirecrackerSettings
from firebrick.machine.firecracker.version import Feature, Version
from firebrick.machine.firecracker.vm import FirecrackerMachine, Made
from firebrick.machine.firecracker.vmm import HINT, Vmm, running
from firebrick.machine.jail.open import OpenRooms
from firebrick.machine.jail.room import Room, Rooms
from firebrick.machine.network.slot import Networks, Slot
from firebrick.machine.seat import Seat, Seats
from firebrick.machine.spec import MachineSpec, Network
from firebrick.process import ProcessError, find_program, run
from firebrick.task import shielded

PAGES_SOCKET: Final = "uffd.sock"
_Program = tuple[str, int, int]
"""Which file it is: path, size and age."""

_ELF: Final = b"\x7fELF"
_VERSIONS: Final[dict[_Program, Version]] = {}
_CPU_LINES: Final = {"vendor_id": "vendor", "cpu family": "family", "model": "model", "stepping": "stepping"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a machine lives: its own directory, its room, its network where it has one."""

    directory: Path
    room: Room
    slot: Slot | None
    detached: bool


class Firecracker:
    """The driver. `cache` keeps empty disks. Without `rooms` there is no jail; with `seats` each machine gets a user of its own, as its rooms need;
    `network` is what makes namespaces. `pager` serves the memory of restored machines page by page, where it is given, instead of a mapping
    of the file; with `prefetch` the first machine of a snapshot leaves a list there of the pages it used, which later ones get ahead.
    `track_dirty_pages` is the price of diff snapshots."""

    name = "firecracker"

    def __init__(
        self,
        cache: Path,
        settings: FirecrackerSettings | None = None,
        *,
        rooms: Rooms | None = None,
        seats: Seats | None = None,
        network: Networks | None = None,
        pager: Pager | None = None,
        prefetch: bool = False,
        track_dirty_pages: bool = False,
    ) -> None:
        self.settings = settings or FirecrackerSettings.from_environment()
        self._cache = cache
        self._rooms = rooms or OpenRooms(self._command)
        self._seats = seats
        self._network = network
        self._pages = None if pager is None else Pages(pager, prefetch)
        self._tracked = track_dirty_pages
        self._version: Version | None = None
        self._said: dict[_Program, Version] = {}  # by the first machine of each program

    async def facts(self, spec: MachineSpec) -> Mapping[str, str]:
        version = await self.version()
        return {
            "Firecracker": str(version),
            "snapshot format": str(version.snapshot_format or f"of {version}"),
            "host processor": processor(Path("/proc/cpuinfo").read_text()),
            "host kernel": os.uname().release,
            "CPU template": config.template_digest(spec),
        }

    async def version(self) -> Version:
        """Of the program. Raises HostError where there is none, or one that is too old."""
        if self._version is None:
            self._version = await _ask_version(self.settings.binary)
        return self._version

    def patience(self, deadline: float) -> float:
        return deadline

    def answered(self) -> None:
        """Nothing to learn from: it starts machines in one way."""

    def stayed_silent(self, seconds: float) -> bool:  # noqa: ARG002 - the contract's signature
        return False

    @asynccontextmanager
    async def boot(
        self, spec: MachineSpec, directory: Path, *, detached: bool = False
    ) -> AsyncIterator[FirecrackerMachine]:
        _check_alone(spec, detached=detached)
        _check_files(spec)
        config.check(spec, await self.version())
        empty = await disk.empty_filesystem(self._cache, spec.scratch_mib)
        async with self._place(spec, directory, detached=detached) as place:
            placed = await shielded(asyncio.to_thread(disks.place_new, place.room, spec, empty))
            async with self._vmm(place) as vmm:
                await self._start(vmm, spec)
                async with self._machine(place, spec, placed, vmm) as machine:
                    yield machine

    @asynccontextmanager
    async def restore(
        self, spec: MachineSpec, snapshot: Path, directory: Path, *, detached: bool = False
    ) -> AsyncIterator[FirecrackerMachine]:
        async with self._prepared(spec, snapshot, directory, detached=detached) as prepared:
            yield await prepared.begin()

    def prepare(
        self, spec: MachineSpec, snapshot: Path, directory: Path
    ) -> AbstractAsyncContextManager[Prepared[FirecrackerMachine]]:
        """See Driver: Firecracker waits in its room, with its files and its network, for the one request that loads the snapshot."""
        return self._prepared(spec, snapshot, directory)

    @asynccontextmanager
    async def adopt(self, spec: MachineSpec, directory: Path) -> AsyncIterator[FirecrackerMachine]:
        """See Driver. A jailed machine needs rooms of its kind here too; raises SpecError without."""
        kept = record.read(directory)
        seats = self._seats or Seats()
        async with (
            found(directory, self._rooms, seats) as (room, vmm),
            _linked(self.settings.socket_dir, directory, room),
        ):
            made = Made(spec=spec, record=kept, kept=directory, leave=partial(_leave, seats, room.seat))
            machine = FirecrackerMachine(vmm, made)
            try:
                await machine.pick_up()
                yield machine
            finally:
                await shielded(machine.close())

    # --- how ---

    @asynccontextmanager
    async def _place(self, spec: MachineSpec, directory: Path, *, detached: bool) -> AsyncIterator[_Place]:
        async with AsyncExitStack() as stack:
            seat, slot = None, None
            if spec.network is Network.NAMESPACE:
                slot = await stack.enter_async_context(self._slot(spec, directory))
                seat = slot.seat
            elif self._seats is not None:
                seat = stack.enter_context(self._seats.take(directory))
            room = await stack.enter_async_context(self._rooms.open(spec, directory, seat))
            yield _Place(directory, room, slot, detached)

    def _slot(self, spec: MachineSpec, directory: Path) -> AbstractAsyncContextManager[Slot]:
        if self._network is None:
            raise HostError(
                "cannot give the machine a network: the driver was made without one",
                hint="Make it with `network`, as root, or ask for Network.NONE.",
            )
        return self._network.slot(spec.policy, directory)

    @asynccontextmanager
    async def _prepared(
        self, spec: MachineSpec, snapshot: Path, directory: Path, *, detached: bool = False
    ) -> AsyncIterator[Prepared[FirecrackerMachine]]:
        _check_alone(spec, detached=detached, pager=self._pages)
        if spec.huge_pages and self._pages is None:
            raise SnapshotError(
                f"cannot restore {snapshot}: memory of huge pages cannot be mapped from a file",
                hint="Make the driver with a page server.",
            )
        async with self._place(spec, directory, detached=detached) as place, AsyncExitStack() as stack:
            room = place.room
            placed = await shielded(
                asyncio.to_thread(disks.place_saved, room, snapshot, with_memory=self._pages is None)
            )
            served = None
            if self._pages is not None:
                served = await stack.enter_async_context(self._pages.serving(room, snapshot))
            vmm = await stack.enter_async_context(self._vmm(place, served))

            async def begin() -> FirecrackerMachine:
                await self._load(vmm, spec, snapshot)
                return await stack.enter_async_context(self._machine(place, spec, placed, vmm, served))

            yield Prepared(begin, lambda: vmm.ended)

    @asynccontextmanager
    async def _vmm(self, place: _Place, served: Served | None = None) -> AsyncIterator[Vmm]:
        """Firecracker, which has been told nothing yet."""
        kept = place.directory if place.detached else None
        netns = None if place.slot is None else place.slot.netns
        program = _program(self.settings.binary)
        async with (
            running(place.room, netns, kept, version=self._said.get(program)) as vmm,
            watched(vmm, served),
            _linked(self.settings.socket_dir, place.directory, place.room),
        ):
            self._said[program] = vmm.version
            yield vmm

    @asynccontextmanager
    async def _machine(
        self, place: _Place, spec: MachineSpec, placed: disks.Disks, vmm: Vmm, served: Served | None = None
    ) -> AsyncIterator[FirecrackerMachine]:
        """What has been told all it needs to run, and does."""
        kept = place.directory if place.detached else None
        made = Record(disks=dict(placed), tracked=self._tracked)
        leave = partial(_leave, self._seats, place.room.seat)
        machine = FirecrackerMachine(vmm, Made(spec=spec, record=made, kept=kept, leave=leave, slot=place.slot))
        try:
            async with noted(served):
                yield machine
        finally:
            await shielded(machine.close())

    async def _start(self, vmm: Vmm, spec: MachineSpec) -> None:
        try:
            *settings, start = config.boot(spec, vmm.version, track_dirty_pages=self._tracked)
            with vmm.room.closing(config.VSOCK_SOCKET):
                for request in settings:
                    await vmm.api.send(request)
            await vmm.api.send(start)
        except FirecrackerError as error:
            if "KVM" in error.fault or "/dev/kvm" in error.fault:
                raise HostError(f"cannot start the machine: {error.fault}", hint=HINT) from error
            raise BootError(
                f"cannot start the machine: {error}", hint="The log says more.", console=vmm.log()
            ) from error
        except MachineGoneError as error:
            raise BootError(
                f"cannot start the machine: {(await vmm.wait()).message}", hint="The log says more.", console=vmm.log()
            ) from error

    async def _load(self, vmm: Vmm, spec: MachineSpec, snapshot: Path) -> None:
        """Firecracker takes one attempt: after one that failed the process is of no use, and ends. What a metadata service answers is in no
        snapshot."""
        later = spec.metadata is not None
        load = Load(
            backend=Backend.FILE if self._pages is None else Backend.UFFD,
            memory=config.MEMORY if self._pages is None else PAGES_SOCKET,
            resume=not later,
            track_dirty_pages=self._tracked,
        )
        try:
            with vmm.room.closing(config.VSOCK_SOCKET):
                await vmm.api.send(config.load_snapshot(load, vmm.version))
            if spec.metadata is not None:
                await vmm.api.send(config.metadata(spec.metadata))
                await vmm.api.send(config.vm_state(paused=False))
        except (FirecrackerError, MachineGoneError) as error:
            said = error.fault if isinstance(error, FirecrackerError) else (await vmm.wait()).message
            raise SnapshotError(
                f"cannot restore {snapshot}: {said}", hint="Take the snapshot anew with this Firecracker, on this host."
            ) from error

    def _command(self, directory: Path) -> list[str]:
        return [self.settings.binary, "--id", config.instance_id(directory.name)]


def processor(cpuinfo: str) -> str:
    """What of the host's processor a snapshot depends on: vendor, family, model, stepping. Pure."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name in _CPU_LINES:
            found.setdefault(_CPU_LINES[name], value)
    return " ".join(f"{name} {found[name]}" for name in _CPU_LINES.values() if name in found) or "unknown"


def _program(binary: str) -> _Program:
    """Raises HostError where there is none."""
    program = find_program(binary)
    if program is None:
        raise HostError(
            f"cannot start machines: {binary} is not on this host",
            hint="Install Firecracker, or say where it is with MICROVM_FIRECRACKER_BIN.",
        )
    facts = os.stat(program)  # noqa: PTH116
    return program, facts.st_size, facts.st_mtime_ns


async def _ask_version(binary: str) -> Version:
    """Remembered as long as the program is the same file."""
    key = _program(binary)
    if key not in _VERSIONS:
        try:
            text = (await run([key[0], "--version"], timeout=30)).text
        except ProcessError as error:
            raise HostError(f"cannot ask Firecracker for its version: {error}") from error
        match = re.search(r"Firecracker (v\S+)", text)
        _VERSIONS[key] = Version.parse(match[1] if match else text[:80])
    version = _VERSIONS[key]
    if not version.has(Feature.OLDEST):
        raise HostError(f"Firecracker {version} is too old: machines need {Feature.OLDEST.since}")
    return version


@asynccontextmanager
async def _linked(socket_dir: Path | None, directory: Path, room: Room) -> AsyncIterator[None]:
    """A name of the API's socket where its user looks for one."""
    if socket_dir is None:
        yield
        return
    socket_dir.mkdir(parents=True, exist_ok=True)
    link = socket_dir / f"{directory.name}.sock"
    link.unlink(missing_ok=True)
    link.symlink_to(room.root / config.API_SOCKET)
    try:
        yield
    finally:
        link.unlink(missing_ok=True)


def _leave(seats: Seats | None, seat: Seat | None) -> None:
    if seats is not None and seat is not None:
        seats.leave(seat)


def _check_alone(spec: MachineSpec, *, detached: bool, pager: Pages | None = None) -> None:
    """A machine cannot outlive its process with what that does for it all the time."""
    needs = ["a network namespace"] if spec.network is Network.NAMESPACE else []
    needs += ["a page server"] if pager is not None else []
    if detached and needs:
        raise SpecError(
            f"cannot make a machine that outlives its process with {needs[0]}: that ends with the process that made it",
            hint="Start it without `detached`, or without that.",
        )


def _check_files(spec: MachineSpec) -> None:
    for path in (spec.kernel, spec.initrd, spec.root, *(drive.path for drive in spec.drives)):
        if path is not None and not path.exists():
            raise SpecError(
                f"cannot make the machine: {path} does not exist",
                hint="Name a kernel, an initramfs and images that exist.",
            )
    with spec.kernel.open("rb") as file:
        if file.read(4) != _ELF:
            raise SpecError(
                f"cannot make the machine: {spec.kernel} is not an ELF file, the only kind of kernel Firecracker starts",
                hint="`firebrick image` keeps the ELF of its kernels.",
            )
