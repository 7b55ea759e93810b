"""Machines under QEMU: KVM where it works, else emulated. No privileges are needed, and root puts each into a jail of its own.

QEMU is started with everything it needs in its arguments and inherited descriptors: sockets that listen already, a console on its standard
output, the device state of a fork as an open file. So nothing polls, and between starting a fork and its first answer there is no
conversation with QEMU at all; the monitor is opened when somebody pauses or saves the machine, and to hear how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.guest.client import ByteStream, open_stream
from firebrick.machine import disk, host, memory, tsc
from firebrick.machine.accel import Acceleration, Accelerator
from firebrick.machine.command import MACHINE_TYPE, Plan, command, file_node, processor, scratch_node
from firebrick.machine.driver import Exit, ExitCause, HostUsage
from firebrick.machine.errors import HostError, SnapshotError, SpecError
from firebrick.machine.jail import files
from firebrick.machine.jail.bubble import Bubble, BubbleRoom
from firebrick.machine.jail.sealed import MAPPED, SealedFiles
from firebrick.machine.network.slot import Networks, Slot
from firebrick.machine.qmp import Event, Qmp
from firebrick.machine.ring import Ring
from firebrick.machine.seat import Seats
from firebrick.machine.spec import MachineSpec, Network
from firebrick.machine.usage import host_usage
from firebrick.process import PIPE, Process, ProcessError, shielded, spawn

CONSOLE_BYTES: Final = 64 << 10
_COMPLAINT_BYTES: Final = 4 << 10
_LAST_WORDS_S: Final = 1.0
_STATE: Final = "state"
_MEMORY: Final = "memory"
_AGENT: Final = "agent.sock"
_MONITOR: Final = "monitor.sock"
_PANIC: Final = "Kernel panic - not syncing"


class Qemu:
    """The driver. `cache` keeps what is the same for all machines: empty disks, what the host can do. `accelerator` overrules the choice.

    With `rooms` every machine is jailed, in a seat of `seats`; that needs root. Without, QEMU runs as whoever runs this. `network` gives machines
    their network namespaces, and must be open while they live."""

    name = "qemu"

    def __init__(
        self,
        cache: Path,
        *,
        accelerator: Accelerator | None = None,
        rooms: Bubble | None = None,
        seats: Seats | None = None,
        network: Networks | None = None,
    ) -> None:
        self._cache = cache
        self._rooms = rooms
        self._seats = seats or Seats()
        self._sealed = SealedFiles()
        self._network = network
        self._forced = accelerator
        self._acceleration: Acceleration | None = None
        self._version = ""

    async def facts(self, spec: MachineSpec) -> Mapping[str, str]:
        accelerator = await self._accelerator()
        facts = {
            "QEMU": self._version,
            "machine type": MACHINE_TYPE,
            "accelerator": accelerator.value,
            "processor": processor(spec, accelerator),
        }
        if accelerator is Accelerator.KVM:
            return facts | {"host processor": host.processor_model()}
        rate = await asyncio.to_thread(tsc.rate_khz)
        return facts | {"clock": f"{round((rate or 0) / 10_000) / 100:.2f} GHz"}

    def patience(self, deadline: float) -> float:
        return deadline if self._acceleration is None else self._acceleration.patience(deadline)

    def answered(self) -> None:
        if self._acceleration is not None:
            self._acceleration.started()

    def stayed_silent(self, seconds: float) -> bool:
        return self._acceleration is not None and self._acceleration.stayed_silent(seconds)

    @asynccontextmanager
    async def boot(self, spec: MachineSpec, directory: Path) -> AsyncIterator[QemuMachine]:
        _check(spec)
        accelerator = await self._accelerator()
        rate = await asyncio.to_thread(tsc.rate_khz) if accelerator is Accelerator.TCG else None
        base = directory / "scratch.0.raw"
        disk.share(await disk.empty_filesystem(self._cache, spec.scratch_mib), base)
        async with AsyncExitStack() as stack:
            around = await self._surroundings(stack, spec, directory, accelerator)
            if around.room is not None:
                for path in (spec.kernel, spec.initrd):
                    around.room.show(path)
            layers = [base, _new_layer([base], directory, spec, around.room)]
            where = _Mapping(memory.NO_FILE, memory.NO_FILE, memory.NO_FILE)
            yield await stack.enter_async_context(_started(spec, around, accelerator, where, layers, tsc_khz=rate))

    @asynccontextmanager
    async def restore(self, spec: MachineSpec, snapshot: Path, directory: Path) -> AsyncIterator[QemuMachine]:
        _check(spec)
        accelerator = await self._accelerator()
        async with AsyncExitStack() as stack:
            around = await self._surroundings(stack, spec, directory, accelerator)
            layers = _adopt(snapshot, directory, disk.share if around.room is None else files.share)
            layers.append(_new_layer(layers, directory, spec, around.room))
            file = directory / _MEMORY
            where = _Mapping(file, file, file)
            if around.room is not None:
                fd = await stack.enter_async_context(self._sealed.open(file))
                where = _Mapping(Path(f"/proc/self/fd/{fd}"), MAPPED, file, fd)
            yield await stack.enter_async_context(
                _started(spec, around, accelerator, where, layers, state=snapshot / _STATE)
            )

    async def _surroundings(
        self, stack: AsyncExitStack, spec: MachineSpec, directory: Path, accelerator: Accelerator
    ) -> _Surroundings:
        """They last as long as the stack."""
        slot = await stack.enter_async_context(_slot(spec, directory, self._network))
        room = await stack.enter_async_context(self._room(spec, directory, accelerator, slot))
        return _Surroundings(directory, slot, room)

    @asynccontextmanager
    async def _room(
        self, spec: MachineSpec, directory: Path, accelerator: Accelerator, slot: Slot | None
    ) -> AsyncIterator[BubbleRoom | None]:
        """The jail of a machine, with what every start needs in it, in the seat of its slot where it has one."""
        if self._rooms is None:
            yield None
            return
        if spec.network is Network.USER:
            raise SpecError(
                "cannot make the machine: a jail has no user network, which would reach what listens on the host",
                hint="Ask for no network, or for a namespace.",
            )
        with nullcontext(slot.seat) if slot is not None else self._seats.take(directory) as seat:
            async with self._rooms.open(spec, directory, seat) as room:
                _furnish(room, spec, accelerator)
                yield room

    async def _accelerator(self) -> Accelerator:
        if not self._version:
            self._version = await host.qemu_version(self._cache)
        if self._forced is not None:
            return self._forced
        if self._acceleration is None:
            self._acceleration = Acceleration(self._cache, self._version)
        return (await self._acceleration.choose()).accelerator


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Where a machine's memory comes from: what QEMU opens, what the kernel calls that, the file with its content, and the descriptor to
    inherit where there is one."""

    opened: Path
    name: Path
    content: Path
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class _Vmm:
    """A QEMU that was started: what we started, what became of it, and where it lives."""

    process: Process
    pid: int
    mapping: _Mapping
    room: BubbleRoom | None


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What a machine has of its own on the host: a directory, and where it has them a network slot and a jail."""

    directory: Path
    slot: Slot | None
    room: BubbleRoom | None


class QemuMachine:
    """One running QEMU; a VirtualMachine."""

    def __init__(self, vmm: _Vmm, qmp: Qmp, plan: Plan, directory: Path) -> None:
        self.pid: int | None = vmm.pid
        self.parts = False
        self._process = vmm.process
        self._mapping = vmm.mapping
        self._room = vmm.room
        self._qmp = qmp
        self._plan = plan
        self._directory = directory
        self._layers = list(plan.layers)
        self._console = Ring(CONSOLE_BYTES)
        self._complaints = Ring(_COMPLAINT_BYTES)
        self._stream: ByteStream | None = None
        self._killed = False
        self.slot: Slot | None = None
        """Its network, where that is a namespace of its own."""
        self.reason = ""
        """Why QEMU ended, in its own word, when it has said so."""
        self._end = asyncio.create_task(self._watch(), name=f"qemu-{plan.machine}")

    async def channel(self) -> ByteStream:
        if self._stream is not None:
            await self._stream.close()
        self._stream = await open_stream(_connect(self._directory, _AGENT))
        return self._stream

    async def pause(self) -> None:
        await self._qmp.execute("stop")

    async def resume(self) -> None:
        await self._qmp.execute("cont")

    async def save(self, target: Path) -> None:
        await self._save_devices(target / _STATE)
        sealed = await self._seal_disk()
        await shielded(asyncio.to_thread(self._copy, sealed, target))

    async def kill(self) -> Exit:
        if not self._process.ended:
            self._killed = True
            self._process.signal(signal.SIGKILL)
        return await self.wait()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    def console(self) -> str:
        return self._console.text()

    def complaints(self) -> str:
        """What QEMU itself said on its error output."""
        return self._complaints.text().strip()

    def rungs(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """None: what QEMU does when it is told to end saves nothing that a kill would lose."""
        return ()

    def usage(self) -> HostUsage:
        assert self.pid is not None
        return host_usage(self.pid)

    async def close(self) -> None:
        """Everything over, in order: the machine, then what speaks with it. Idempotent."""
        await self.kill()
        if self._stream is not None:
            await self._stream.close()
        await self._qmp.close()

    async def _save_devices(self, target: Path) -> None:
        """A jailed QEMU cannot reach the target: it writes into a file of its own, and what it wrote is copied."""
        if self._room is None:
            await self._qmp.execute("xen-save-devices-state", filename=str(target), live=True)
            return
        draft = self._directory / f".{_STATE}"
        draft.touch(exist_ok=False)
        try:
            with draft.open("rb") as written:
                self._room.own(draft.name)
                await self._qmp.execute("xen-save-devices-state", filename=str(draft), live=True)
                with target.open("xb") as out:
                    shutil.copyfileobj(written, out)
        finally:
            draft.unlink(missing_ok=True)

    async def _seal_disk(self) -> list[Path]:
        """Nothing is written to the layers there are any more; an empty one takes what comes."""
        sealed = list(self._layers)
        layer = _new_layer(sealed, self._directory, self._plan.spec, self._room)
        node = scratch_node(len(sealed))
        options = {**file_node(layer, "qcow2", read_only=False), "node-name": node, "backing": None}
        await self._qmp.execute("blockdev-add", **options)
        await self._qmp.execute("blockdev-snapshot", node=scratch_node(len(sealed) - 1), overlay=node)
        self._layers.append(layer)
        if self._room is not None:
            for path in sealed[1:]:  # the first is everybody's, and has been sealed for ever
                files.seal(path)
        return sealed

    def _copy(self, sealed: Sequence[Path], target: Path) -> None:
        disk.seal(sealed, target)
        assert self.pid is not None
        try:
            size = self._plan.spec.memory_mib << 20
            memory.save(self.pid, self._mapping.name, size, target / _MEMORY, base=self._mapping.content)
        except PermissionError as error:
            raise SnapshotError(
                f"cannot save the memory of machine {self._plan.machine}: {error}",
                hint="kernel.yama.ptrace_scope must be 0 or 1.",
            ) from error
        except OSError as error:
            raise SnapshotError(
                f"cannot save the memory of machine {self._plan.machine}: {error}", hint="See that there is space."
            ) from error

    async def _watch(self) -> Exit:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        readers = [
            asyncio.create_task(_drain(self._process.stdout, self._console), name="qemu-console"),
            asyncio.create_task(_drain(self._process.stderr, self._complaints), name="qemu-stderr"),
        ]
        with contextlib.suppress(Exception):  # without the monitor the end is known less well, and nothing else is lost
            await self._qmp.open()
        returncode = await self._process.wait()
        await asyncio.wait(readers, timeout=_LAST_WORDS_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._qmp.closed(), _LAST_WORDS_S)
        for reader in readers:
            reader.cancel()
        if self._room is not None:
            returncode = self._room.status(returncode)
            if self._room.out_of_memory():
                return Exit(
                    ExitCause.OUT_OF_MEMORY, "the kernel killed QEMU, which wanted more memory than it may have"
                )
        return judge_exit(
            returncode, self.reason, killed=self._killed, console=self.console(), complaints=self.complaints()
        )


def judge_exit(returncode: int, reason: str, *, killed: bool, console: str, complaints: str) -> Exit:
    """How the machine ended, from all that is known of it. Pure."""
    panic = next((line for line in console.splitlines() if _PANIC in line), "")
    if panic:
        return Exit(ExitCause.PANIC, f"the guest's kernel panicked: {panic.split(_PANIC)[1].lstrip(': ')}")
    if reason == "guest-shutdown":
        return Exit(ExitCause.POWEROFF, "the guest powered off")
    if reason == "guest-reset":
        return Exit(ExitCause.REBOOT, "the guest rebooted, which ends a machine")
    if killed:
        return Exit(ExitCause.KILLED, "it was killed")
    if returncode == -signal.SIGKILL:
        return Exit(
            ExitCause.OUT_OF_MEMORY, "something on the host killed QEMU, most likely the kernel for want of memory"
        )
    status = f"by {signal.Signals(-returncode).name}" if returncode < 0 else f"with status {returncode}"
    return Exit(ExitCause.CRASHED, f"QEMU ended {status}" + (f": {complaints.splitlines()[-1]}" if complaints else ""))


@asynccontextmanager
async def _started(
    spec: MachineSpec,
    around: _Surroundings,
    accelerator: Accelerator,
    mapping: _Mapping,
    layers: Sequence[Path],
    *,
    state: Path | None = None,
    tsc_khz: int | None = None,
) -> AsyncIterator[QemuMachine]:
    """QEMU, running as long as the context. The parent's copies of what it inherits are closed as soon as it has them: when it ends, its ends do."""
    directory, slot, room = around.directory, around.slot, around.room
    async with AsyncExitStack() as stack:
        with contextlib.ExitStack() as inherited:
            agent = inherited.enter_context(_listening(directory, _AGENT))
            monitor = inherited.enter_context(_listening(directory, _MONITOR))
            state_fd = inherited.enter_context(_opened(state)) if state is not None else None
            tap_fd = await _open_tap(slot, inherited)
            plan = Plan(
                spec=spec,
                machine=directory.name,
                accelerator=accelerator,
                memory=mapping.opened,
                layers=layers,
                agent_fd=agent.fileno(),
                monitor_fd=monitor.fileno(),
                state_fd=state_fd,
                tap_fd=tap_fd,
                tsc_khz=tsc_khz,
            )
            fds = [fd for fd in (plan.agent_fd, plan.monitor_fd, state_fd, tap_fd, mapping.fd) if fd is not None]
            argv = command(plan) if room is None else room.argv(command(plan))
            fds += room.fds if room is not None else ()
            try:
                process = await stack.enter_async_context(
                    spawn(argv, stdout=PIPE, stderr=PIPE, pass_fds=fds, grace=0, hint=host.HINT)
                )
            except ProcessError as error:
                raise HostError(str(error), hint=error.hint) from error
        pid = process.pid if room is None else await _jailed(process, room)
        machine = _attach(_Vmm(process, pid, mapping, room), plan, directory)
        machine.slot = slot
        stack.push_async_callback(lambda: shielded(machine.close()))
        yield machine


@asynccontextmanager
async def _slot(spec: MachineSpec, directory: Path, network: Networks | None) -> AsyncIterator[Slot | None]:
    if spec.network is not Network.NAMESPACE:
        yield None
        return
    if network is None:
        raise SpecError(
            "cannot give the machine a network namespace: the driver has none to give",
            hint="Make the driver as Qemu(cache, network=pool), with an open SlotPool.",
        )
    async with network.slot(spec.policy, directory) as slot:
        if spec.network_rate is not None:
            await slot.limit(spec.network_rate)
        yield slot


async def _open_tap(slot: Slot | None, inherited: contextlib.ExitStack) -> int | None:
    if slot is None:
        return None
    fd = await slot.open_tap()
    inherited.callback(os.close, fd)
    return fd


async def _jailed(process: Process, room: BubbleRoom) -> int:
    """QEMU's own number. Raises HostError, with the last words of what was to start it."""
    try:
        return await room.pid_of(process.pid)
    except HostError as error:
        assert process.stderr is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                words = (await process.stderr.read(_COMPLAINT_BYTES)).decode(errors="replace").strip()
                raise HostError(f"cannot start a machine in its jail: {words or error}", hint=error.hint) from error
        raise


def _attach(vmm: _Vmm, plan: Plan, directory: Path) -> QemuMachine:
    def on_event(event: Event) -> None:
        if event["event"] == "SHUTDOWN":
            machine.reason = str(event.get("data", {}).get("reason", ""))

    machine = QemuMachine(vmm, Qmp(_connect(directory, _MONITOR), on_event), plan, directory)
    return machine


def _furnish(room: BubbleRoom, spec: MachineSpec, accelerator: Accelerator) -> None:
    """Let the machine's QEMU see what it needs from its start to its end."""
    if spec.root is not None:
        room.show(spec.root)
    for drive in spec.drives:
        room.show(drive.path) if drive.read_only else room.lend(drive.path)
    if accelerator is Accelerator.KVM:
        room.show_kvm()


def _new_layer(layers: Sequence[Path], directory: Path, spec: MachineSpec, room: BubbleRoom | None) -> Path:
    layer = disk.add_layer(layers, directory, spec.scratch_mib)
    if room is not None:
        room.own(layer.name)
    return layer


def _check(spec: MachineSpec) -> None:
    for path in (spec.kernel, spec.initrd, spec.root, *(drive.path for drive in spec.drives)):
        if path is not None and not path.exists():
            raise SpecError(
                f"cannot make the machine: {path} does not exist",
                hint="Name a kernel, an initramfs and images that exist.",
            )
    if len({drive.name for drive in spec.drives} | {"root", "scratch"}) != len(spec.drives) + 2:
        raise SpecError(
            "cannot make the machine: two drives have the same name", hint="`root` and `scratch` are taken."
        )


def _adopt(snapshot: Path, directory: Path, share: Callable[[Path, Path], None]) -> list[Path]:
    """Give the machine its own names for the files of the snapshot, so that it does not matter to it when the snapshot is removed."""
    layers = sorted(snapshot.glob("scratch.*"), key=lambda path: int(path.name.split(".")[1]))
    disk.share(snapshot / _MEMORY, directory / _MEMORY)
    for layer in layers:
        share(layer, directory / layer.name)
    return [directory / layer.name for layer in layers]


async def _drain(source: asyncio.StreamReader, ring: Ring) -> None:
    while data := await source.read(1 << 14):
        ring.write(data)


@contextlib.contextmanager
def _listening(directory: Path, name: str) -> Iterator[socket.socket]:
    with _near(directory) as near, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{near}/{name}")
        sock.listen(1)
        yield sock


def _connect(directory: Path, name: str) -> socket.socket:
    """Succeeds at once: the other end listens, even before QEMU runs. Raises OSError when QEMU has ended."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _near(directory) as near:
            sock.connect(f"{near}/{name}")
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _near(directory: Path) -> Iterator[str]:
    """A short name for a directory: a socket's path has 108 bytes at most."""
    with _opened(directory) as fd:
        yield f"/proc/self/fd/{fd}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
