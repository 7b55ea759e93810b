"""One machine under QEMU: what the library asks of any virtual machine, said to QEMU's monitor, its memory and its files."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.guest.client import ByteStream, open_stream
from firebrick.machine import disk, memory
from firebrick.machine.command import file_node, scratch_node
from firebrick.machine.driver import Baseline, Exit, HostUsage
from firebrick.machine.errors import HostError, MachineGoneError, SnapshotError
from firebrick.machine.jail import files
from firebrick.machine.network.slot import Slot
from firebrick.machine.qemu import sockets
from firebrick.machine.qemu.exits import judge_exit
from firebrick.machine.qemu.outputs import Outputs
from firebrick.machine.qemu.surroundings import Surroundings
from firebrick.machine.qmp import Event, Qmp, QmpError
from firebrick.machine.spec import MachineSpec
from firebrick.machine.usage import host_usage
from firebrick.process import Attended, Process
from firebrick.task import shielded

STATE: Final = "state"
MEMORY: Final = "memory"
_DRAFT: Final = ".state"
_LAST_WORDS_S: Final = 1.0
_LOADING: Final = "inmigrate"
_LOADED_S: Final = 60.0
_POLL_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where a machine's memory comes from: what QEMU opens, what the kernel calls that, the file with its content, and the descriptor to
    inherit where there is one."""

    opened: Path
    name: Path
    content: Path
    fd: int | None = None

    @classmethod
    def of(cls, file: Path) -> Mapping:
        """Of a file that QEMU can open itself."""
        return cls(file, file, file)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a QEMU that runs was started with: its memory, the layers of its scratch disk, what is around it."""

    spec: MachineSpec
    mapping: Mapping
    layers: Sequence[Path]
    around: Surroundings

    @property
    def machine(self) -> str:
        return self.around.directory.name


@dataclass(frozen=True, slots=True)
class Vmm:
    """A QEMU that runs: `process` is what was started, or found, `pid` what became of it, in a jail another."""

    process: Process | Attended
    pid: int
    outputs: Outputs


class QemuMachine:
    """One running QEMU; a VirtualMachine."""

    def __init__(self, vmm: Vmm, shape: Shape) -> None:
        """Raises OSError when QEMU has ended."""
        self.pid: int | None = vmm.pid
        self.parts = False
        self._process = vmm.process
        self._outputs = vmm.outputs
        self._shape = shape
        self._directory = shape.around.directory
        self._room = shape.around.room
        self._qmp = Qmp(sockets.connect(self._directory, sockets.MONITOR), self._on_event)
        self._layers = list(shape.layers)
        self._stream: ByteStream | None = None
        self._killed = False
        self._released = False
        self.reason = ""
        """Why QEMU ended, in its own word, when it has said so."""
        self._end = asyncio.create_task(self._watch(), name=f"qemu-{shape.machine}")

    @property
    def slot(self) -> Slot | None:
        """Its network, where that is a namespace of its own."""
        return self._shape.around.slot

    @property
    def ended(self) -> bool:
        return self._process.ended

    @property
    def baseline(self) -> Baseline:
        return Baseline.NONE if self._shape.mapping.content == memory.NO_FILE else Baseline.ORIGIN

    async def channel(self) -> ByteStream:
        if self._stream is not None:
            await self._stream.close()
        self._stream = await open_stream(sockets.connect(self._directory, sockets.AGENT))
        return self._stream

    async def pause(self) -> None:
        await self._qmp.execute("stop")

    async def resume(self) -> None:
        await self._qmp.execute("cont")

    async def save(self, target: Path, *, diff: bool = False) -> None:
        await self._save_devices(target / STATE)
        sealed = await self._seal_disk()
        await shielded(asyncio.to_thread(self._copy, sealed, target, diff))

    async def loaded(self) -> None:
        """Wait until it has all of the state it was started from. Raises MachineGoneError, HostError where that takes too long."""
        try:
            async with asyncio.timeout(_LOADED_S):
                while (await self._qmp.execute("query-status")).get("status") == _LOADING:  # noqa: ASYNC110 - QEMU does not say
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise HostError(
                f"cannot restore machine {self._shape.machine}: QEMU has not loaded its devices after {_LOADED_S:g} s",
                hint="See that the host is not out of memory.",
            ) from error

    async def release(self) -> None:
        if not self._released:
            self._released = True
            self._process.release()
            self._shape.around.leave()
            await self._part()

    async def pick_up(self) -> None:
        """After another process: a snapshot it was in the middle of is given up, and the machine runs."""
        (self._directory / _DRAFT).unlink(missing_ok=True)
        await self._qmp.open()
        top = await self._top_layer()
        for number, extra in reversed(list(enumerate(self._layers))[top + 1 :]):
            with contextlib.suppress(QmpError):  # the file was there, and QEMU not told of it yet
                await self._qmp.execute("blockdev-del", node_name=scratch_node(number))
            extra.unlink()
        del self._layers[top + 1 :]
        await self.resume()

    async def kill(self) -> Exit:
        if not self._process.ended:
            self._killed = True
            self._process.signal(signal.SIGKILL)
        return await self.wait()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    def console(self) -> str:
        return self._outputs.console.text()

    def complaints(self) -> str:
        """What QEMU itself said on its error output."""
        return self._outputs.complaints.text().strip()

    def rungs(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """None: what QEMU does when it is told to end saves nothing that a kill would lose."""
        return ()

    def usage(self) -> HostUsage:
        assert self.pid is not None
        return host_usage(self.pid)

    async def close(self) -> None:
        """Everything over, in order: the machine, then what speaks with it. Idempotent."""
        if not self._released:
            await self.kill()
        await self._part()

    # --- how ---

    def _on_event(self, event: Event) -> None:
        if event["event"] == "SHUTDOWN":
            data = event.get("data")
            self.reason = str(data.get("reason", "")) if isinstance(data, dict) else ""

    async def _part(self) -> None:
        """Nothing speaks with it any more."""
        if self._released:
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)
        if self._stream is not None:
            await self._stream.close()
        await self._qmp.close()

    async def _save_devices(self, target: Path) -> None:
        """A jailed QEMU cannot reach the target: it writes into a file of its own, and what it wrote is copied."""
        if self._room is None:
            await self._qmp.execute("xen-save-devices-state", filename=str(target), live=True)
            return
        draft = self._directory / _DRAFT
        draft.touch(exist_ok=False)
        try:
            with draft.open("rb") as written:
                self._room.own(draft.name)
                await self._qmp.execute("xen-save-devices-state", filename=str(draft), live=True)
                with target.open("xb") as out:
                    shutil.copyfileobj(written, out)
        finally:
            draft.unlink(missing_ok=True)

    async def _top_layer(self) -> int:
        """The number of the layer the guest writes to."""
        numbers = {scratch_node(number): number for number in range(len(self._layers))}
        with contextlib.suppress(AttributeError, TypeError):  # a QEMU that was taken over says what it likes
            for device in await self._qmp.execute("query-block"):
                number = numbers.get(device.get("inserted", {}).get("node-name"))
                if number is not None:
                    return number
        raise MachineGoneError(f"cannot take over machine {self._shape.machine}: it has no scratch disk")

    async def _seal_disk(self) -> list[Path]:
        """Nothing is written to the layers there are any more; an empty one takes what comes."""
        sealed = list(self._layers)
        layer = self._shape.around.new_layer(sealed, self._shape.spec)
        node = scratch_node(len(sealed))
        options = {**file_node(layer, "qcow2", read_only=False), "node-name": node, "backing": None}
        await self._qmp.execute("blockdev-add", **options)
        await self._qmp.execute("blockdev-snapshot", node=scratch_node(len(sealed) - 1), overlay=node)
        self._layers.append(layer)
        if self._room is not None:
            for path in sealed[1:]:  # the first is everybody's, and has been sealed for ever
                _seal(path)
        return sealed

    def _copy(self, sealed: Sequence[Path], target: Path, diff: bool) -> None:
        disk.seal(sealed, target)
        assert self.pid is not None
        mapping, size = self._shape.mapping, self._shape.spec.memory_mib << 20
        try:
            memory.save(self.pid, mapping.name, size, target / MEMORY, base=mapping.content, diff=diff)
        except PermissionError as error:
            raise SnapshotError(
                f"cannot save the memory of machine {self._shape.machine}: {error}",
                hint="kernel.yama.ptrace_scope must be 0 or 1, and 0 for a machine that was adopted, unless this is root.",
            ) from error
        except OSError as error:
            raise SnapshotError(
                f"cannot save the memory of machine {self._shape.machine}: {error}", hint="See that there is space."
            ) from error

    async def _watch(self) -> Exit:
        async with self._outputs.kept() as readers:
            with contextlib.suppress(Exception):  # without it the end is known less well, and nothing else is lost
                await self._qmp.open()
            returncode = await self._process.wait()
            await asyncio.wait(readers, timeout=_LAST_WORDS_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._qmp.closed(), _LAST_WORDS_S)
        if self._room is not None and returncode is not None:
            returncode = self._room.status(returncode)
        return judge_exit(
            returncode,
            self.reason,
            killed=self._killed,
            console=self.console(),
            complaints=self.complaints(),
            starved=self._room is not None and self._room.out_of_memory(),
        )


def _seal(layer: Path) -> None:
    try:
        files.seal(layer)
    except HostError as error:
        raise SnapshotError(
            f"cannot save the machine: {error}", hint="Kill it: its QEMU keeps what it was told to let go of."
        ) from error
