"""One machine under Firecracker: the contract of every driver, and what only this one can do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firebrick import tree
from firebrick.guest.client import ByteStream
from firebrick.machine.driver import Baseline, Exit, HostUsage
from firebrick.machine.errors import HostError, MachineGoneError, SnapshotError, SpecError, StateError
from firebrick.machine.firecracker import config, disks, vsock
from firebrick.machine.firecracker.api import FirecrackerError
from firebrick.machine.firecracker.config import Request, SnapshotType
from firebrick.machine.firecracker.record import Record
from firebrick.machine.firecracker.version import Fault
from firebrick.machine.firecracker.vmm import Vmm
from firebrick.machine.network.slot import Slot
from firebrick.machine.spec import MachineSpec, RateLimit
from firebrick.machine.usage import host_usage
from firebrick.task import shielded

_LARGE_MIB: Final = 3 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How a machine was made. Where it may outlive this process, `kept` is its directory, and `leave` gives up what is held for it outside."""

    spec: MachineSpec
    record: Record
    kept: Path | None = None
    leave: Callable[[], None] = lambda: None
    slot: Slot | None = None


class FirecrackerMachine:
    """A VirtualMachine. What the guest's memory was saved as last is what a diff is relative to; see `baseline`."""

    def __init__(self, vmm: Vmm, made: Made) -> None:
        self.pid: int | None = vmm.pid
        self.parts = True
        self.version = vmm.version
        self._vmm = vmm
        self._made = made
        self._disks = dict(made.record.disks)
        self._stream: ByteStream | None = None
        self._paused = False
        self._frozen = False
        self._released = False
        self._saves = made.record.saves
        self._swaps = made.record.swaps
        self._since_known = self._saves == 0
        """Whether what is tracked as written has been since a save its user knows of."""
        self._note()

    # --- the contract ---

    @property
    def slot(self) -> Slot | None:
        """Its network, where that is a namespace of its own."""
        return self._made.slot

    @property
    def baseline(self) -> Baseline:
        large = self._made.spec.memory_mib > _LARGE_MIB and self.version.goes_wrong(Fault.DAMAGED_LARGE_DIFF)
        return Baseline.LAST if self._made.record.tracked and self._since_known and not large else Baseline.NONE

    async def channel(self) -> ByteStream:
        """Waits until the guest's end has said something, for as long as the machine lives: the caller gives it a time."""
        await self._hang_up()
        socket = self._vmm.room.root / config.VSOCK_SOCKET
        self._stream = await vsock.connect(socket, vsock.AGENT_PORT, lambda: self._vmm.ended)
        return self._stream

    async def pause(self) -> None:
        if self._paused:
            return
        self._check("pause")
        if self.version.goes_wrong(Fault.DEAF_AFTER_PAUSE):
            self._frozen = True
            await self._vmm.freeze()  # this release's own pause is for snapshots alone
        else:
            await self._send(config.vm_state(paused=True))
        self._paused = True

    async def resume(self) -> None:
        if not self._paused:
            return
        self._check("resume")
        if self._frozen:
            self._thaw()
        else:
            await self._send(config.vm_state(paused=False))
        self._paused = False

    async def save(self, target: Path, *, diff: bool = False) -> None:
        """The agent's connection ends by it, on this machine too: Firecracker resets them all."""
        self._check("save")
        kind = self._kind(diff)
        if self._frozen:
            self._thaw()
            await self._send(config.vm_state(paused=True))
        self._saves += 1
        self._note()
        saved = self._vmm.room.root / f"save{self._saves}"
        await shielded(self._save(kind, saved, target))
        self._since_known = True

    async def release(self) -> None:
        """Raises StateError where it was not started detached."""
        if self._made.kept is None:
            raise StateError("cannot release the machine: it was not made to outlive its process")
        if not self._released:
            self._released = True
            await self._hang_up()
            await self._vmm.release()
            self._made.leave()

    async def pick_up(self) -> None:
        """After another process: a snapshot it was in the middle of is given up, and the machine runs."""
        async with self._vmm.room.saving():  # until what the other process wanted to have is written, and removed
            state = _mapping(await self._get("/")).get("state")
            for saved in self._vmm.room.root.glob("save*"):
                await asyncio.to_thread(tree.remove, saved)
        if state not in ("Running", "Paused"):
            raise MachineGoneError(f"cannot take over the machine: it was never started, Firecracker says {state!r}")
        if state == "Paused":
            if self.version.goes_wrong(Fault.DEAF_AFTER_PAUSE):  # unless it was saved
                await self._save_for_nothing()
            await self._send(config.vm_state(paused=False))

    async def kill(self) -> Exit:
        return await self._vmm.kill()

    async def wait(self) -> Exit:
        return await self._vmm.wait()

    def console(self) -> str:
        return self._vmm.outputs.console.text()

    def usage(self) -> HostUsage:
        return host_usage(self._vmm.pid)

    def rungs(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (self.send_ctrl_alt_del, self.terminate)

    # --- what only this driver has ---

    async def send_ctrl_alt_del(self) -> None:
        """Press the keys: the guest's first process is told to end the machine. Nothing happens in a guest without a keyboard driver."""
        await self._send(config.action("SendCtrlAltDel"))

    async def terminate(self) -> None:
        """Tell Firecracker itself to end; the guest is not asked."""
        self._vmm.killed = True
        self._vmm.signal(signal.SIGTERM)

    async def update_drive(self, name: str, *, path: Path | None = None, rate: RateLimit | None = None) -> None:
        """Put another image into the drive `name`, which the guest must not have mounted, or give it other limits.

        Raises SpecError, HostError, FirecrackerError."""
        id = config.drive_id(self._made.spec, name)  # noqa: A001 - the API's word
        if path is None:
            await self._send(config.update_drive(id, rate=rate))
            return
        if id in ("root", "scratch"):
            raise SpecError(f"cannot change the {name} of a running machine: its guest has it mounted")
        before = self._disks[id]
        self._swaps += 1
        placed = disks.place(
            self._vmm.room, config.drive_file(f"{id}-{self._swaps}"), path.absolute(), written=before.written
        )
        self._disks[id] = placed
        try:
            self._note()  # first: who takes the machine over then knows of every file it may write
            await self._send(config.update_drive(id, file=placed.file, rate=rate))
        except (FirecrackerError, HostError):
            self._disks[id] = before
            with contextlib.suppress(HostError):
                self._note()
            (self._vmm.room.root / placed.file).unlink(missing_ok=True)
            raise

    async def update_network_rate(self, rate: RateLimit) -> None:
        """For each direction. Raises FirecrackerError where there is no network."""
        await self._send(config.update_network(rate))

    async def set_balloon(self, mib: int) -> None:
        """Ask the guest to give up so much memory. Raises FirecrackerError where it has no balloon."""
        await self._send(Request("PATCH", "/balloon", {"amount_mib": mib}))

    async def balloon_statistics(self) -> Mapping[str, Any]:
        """What the guest reported last. Raises FirecrackerError where the balloon was made without statistics."""
        return _mapping(await self._get("/balloon/statistics"))

    async def metadata(self) -> Mapping[str, Any]:
        """What the guest finds at 169.254.169.254."""
        return _mapping(await self._get("/mmds"))

    async def put_metadata(self, data: Mapping[str, Any]) -> None:
        await self._send(config.metadata(data))

    async def patch_metadata(self, data: Mapping[str, Any]) -> None:
        """A JSON merge patch: null removes."""
        await self._send(Request("PATCH", "/mmds", data))

    async def metrics(self) -> Mapping[str, Any]:
        """Firecracker's counters as they are now; each counts since the record before."""
        await self._send(config.action("FlushMetrics"))
        self._vmm.outputs.drain()
        return self._vmm.metrics()

    def last_metrics(self) -> Mapping[str, Any]:
        """The record written last, once a minute and by `metrics`; empty before the first."""
        return self._vmm.metrics()

    def log(self) -> str:
        """The end of Firecracker's own log."""
        return self._vmm.log()

    async def description(self) -> Mapping[str, Any]:
        """Firecracker's view of the machine."""
        return _mapping(await self._get("/vm/config"))

    # --- how ---

    async def close(self) -> None:
        """The machine, unless it was released, then the agent's connection. Idempotent."""
        if not self._released:
            await self._vmm.kill()
        await self._hang_up()

    def _note(self) -> None:
        """For whoever takes it over."""
        if self._made.kept is not None:
            tracked = self._made.record.tracked
            Record(disks=self._disks, tracked=tracked, saves=self._saves, swaps=self._swaps).write(self._made.kept)

    async def _save_for_nothing(self) -> None:
        saved = self._vmm.room.root / "save0"
        self._saves += 1
        self._since_known = False
        self._note()
        async with self._vmm.room.saving():
            try:
                self._vmm.room.prepare(saved.name, (config.STATE, config.MEMORY))
                await self._send(config.create_snapshot(SnapshotType.FULL, saved.name))
            finally:
                await asyncio.to_thread(tree.remove, saved)

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    def _kind(self, diff: bool) -> SnapshotType:
        if not diff:
            return SnapshotType.FULL
        if not self._made.record.tracked:
            raise SnapshotError(
                "cannot save what has changed: the machine was started without dirty page tracking",
                hint="Make the driver with track_dirty_pages=True.",
            )
        if not self._since_known:
            raise SnapshotError(
                "cannot save what has changed: the machine was saved by the process it was taken over from",
                hint="Take a full snapshot first.",
            )
        if self.baseline is Baseline.NONE:
            raise SnapshotError(
                f"cannot save what has changed: {Fault.DAMAGED_LARGE_DIFF.words} by Firecracker {self.version}",
                hint="Take a full snapshot, or install Firecracker 1.15 or newer.",
            )
        return SnapshotType.DIFF

    async def _save(self, kind: SnapshotType, saved: Path, target: Path) -> None:
        async with self._vmm.room.saving():  # until what could not be saved whole is removed
            await self._save_in(kind, saved, target)

    async def _save_in(self, kind: SnapshotType, saved: Path, target: Path) -> None:
        try:
            self._vmm.room.prepare(saved.name, (config.STATE, config.MEMORY))
            try:
                await self._send(config.create_snapshot(kind, saved.name))
            finally:
                await self._hang_up()
            await asyncio.to_thread(disks.collect, self._vmm.room, saved, self._disks, target)
        except FirecrackerError as error:
            raise SnapshotError(
                f"cannot save the machine: {error.fault}",
                hint="See that there is space, and a limit on file sizes that lets it.",
            ) from error
        except OSError as error:
            raise SnapshotError(f"cannot save the machine: {error}", hint="See that there is space.") from error
        finally:
            if saved.exists():
                await asyncio.to_thread(tree.remove, saved)

    async def _send(self, request: Request) -> None:
        self._check_thawed()
        await self._vmm.api.send(request)

    async def _get(self, path: str) -> Any:
        self._check_thawed()
        return await self._vmm.api.get(path)

    def _thaw(self) -> None:
        self._vmm.thaw()
        self._frozen = False

    def _check(self, operation: str) -> None:
        if self._vmm.ended:
            raise MachineGoneError(f"cannot {operation} the machine: it has ended")

    def _check_thawed(self) -> None:
        if self._frozen:
            raise StateError(f"Firecracker {self.version} cannot be asked while it is paused", hint="Resume it first.")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise HostError(f"Firecracker answered {str(value)[:80]!r} where an object was right")
    return value
