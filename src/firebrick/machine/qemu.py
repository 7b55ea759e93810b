"""Machines under QEMU: KVM where it works, else emulated. No privileges are needed.

QEMU is started with everything it needs in its arguments and inherited descriptors: sockets that listen already, a console on its standard
output, the device state of a fork as an open file. So nothing polls, and between starting a fork and its first answer there is no
conversation with QEMU at all; the monitor is opened when somebody pauses or saves the machine, and to hear how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.guest.client import ByteStream, open_stream
from firebrick.machine import disk, host, memory, outlet, owner, tsc
from firebrick.machine.accel import Acceleration, Accelerator
from firebrick.machine.command import MACHINE_TYPE, Plan, command, file_node, processor, scratch_node
from firebrick.machine.driver import Baseline, Exit, ExitCause, HostUsage
from firebrick.machine.errors import HostError, MachineGoneError, SnapshotError, SpecError
from firebrick.machine.qmp import Event, Qmp, QmpError
from firebrick.machine.ring import FileRing, Ring, Tail
from firebrick.machine.spec import MachineSpec
from firebrick.process import PIPE, Attended, Process, ProcessError, attend, shielded, spawn

CONSOLE_BYTES: Final = 64 << 10
_COMPLAINT_BYTES: Final = 4 << 10
_LAST_WORDS_S: Final = 1.0
_STATE: Final = "state"
_MEMORY: Final = "memory"
_AGENT: Final = "agent.sock"
_MONITOR: Final = "monitor.sock"
_CONSOLE: Final = "console"
_COMPLAINTS: Final = "complaints"
_RING: Final = "console.ring"
_PANIC: Final = "Kernel panic - not syncing"


class Qemu:
    """The driver. `cache` keeps what is the same for all machines: empty disks, what the host can do. `accelerator` overrules the choice."""

    name = "qemu"

    def __init__(self, cache: Path, *, accelerator: Accelerator | None = None) -> None:
        self._cache = cache
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
            return facts | {"host processor": host.processor_model(), "host kernel": platform.release()}
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
    async def boot(self, spec: MachineSpec, directory: Path, *, detached: bool = False) -> AsyncIterator[QemuMachine]:
        _check(spec)
        accelerator = await self._accelerator()
        rate = await asyncio.to_thread(tsc.rate_khz) if accelerator is Accelerator.TCG else None
        base = directory / "scratch.0.raw"
        disk.share(await disk.empty_filesystem(self._cache, spec.scratch_mib), base)
        layers = [base]
        layers.append(disk.add_layer(layers, directory, spec.scratch_mib))
        async with _started(
            spec, directory, accelerator, memory.NO_FILE, layers, tsc_khz=rate, detached=detached
        ) as machine:
            yield machine

    @asynccontextmanager
    async def restore(
        self, spec: MachineSpec, snapshot: Path, directory: Path, *, detached: bool = False
    ) -> AsyncIterator[QemuMachine]:
        _check(spec)
        accelerator = await self._accelerator()
        layers = _adopt(snapshot, directory)
        layers.append(disk.add_layer(layers, directory, spec.scratch_mib))
        async with _started(
            spec, directory, accelerator, directory / _MEMORY, layers, state=snapshot / _STATE, detached=detached
        ) as machine:
            yield machine

    @asynccontextmanager
    async def adopt(self, spec: MachineSpec, directory: Path) -> AsyncIterator[QemuMachine]:
        async with AsyncExitStack() as stack:
            process, outputs = await stack.enter_async_context(_attended(directory))
            mapped = directory / _MEMORY
            shape = Shape(spec, directory.name, mapped if mapped.exists() else memory.NO_FILE, _layers(directory))
            try:
                machine = _attach(process, outputs, shape, directory)
                stack.push_async_callback(lambda: shielded(machine.close()))
                await machine.pick_up()
            except OSError as error:
                raise MachineGoneError(f"cannot take over machine {directory.name}: {error}") from error
            yield machine

    async def _accelerator(self) -> Accelerator:
        if not self._version:
            self._version = await host.qemu_version(self._cache)
        if self._forced is not None:
            return self._forced
        if self._acceleration is None:
            self._acceleration = Acceleration(self._cache, self._version)
        return (await self._acceleration.choose()).accelerator


Outputs = tuple[asyncio.StreamReader, asyncio.StreamReader]
"""Console and error output."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a QEMU that runs was started with: the file its memory maps, the layers of its scratch disk."""

    spec: MachineSpec
    machine: str
    memory: Path
    layers: Sequence[Path]


class QemuMachine:
    """One running QEMU; a VirtualMachine."""

    def __init__(
        self, process: Process | Attended, outputs: Outputs, console: Tail, qmp: Qmp, shape: Shape, directory: Path
    ) -> None:
        self.pid: int | None = process.pid
        self._process = process
        self._outputs = outputs
        self._qmp = qmp
        self._shape = shape
        self._directory = directory
        self._layers = list(shape.layers)
        self._console = console
        self._complaints = Ring(_COMPLAINT_BYTES)
        self._stream: ByteStream | None = None
        self._killed = False
        self._released = False
        self.reason = ""
        """Why QEMU ended, in its own word, when it has said so."""
        self._end = asyncio.create_task(self._watch(), name=f"qemu-{shape.machine}")

    @property
    def baseline(self) -> Baseline:
        return Baseline.NONE if self._shape.memory == memory.NO_FILE else Baseline.ORIGIN

    async def channel(self) -> ByteStream:
        if self._stream is not None:
            await self._stream.close()
        self._stream = await open_stream(_connect(self._directory, _AGENT))
        return self._stream

    async def pause(self) -> None:
        await self._qmp.execute("stop")

    async def resume(self) -> None:
        await self._qmp.execute("cont")

    async def save(self, target: Path, *, diff: bool = False) -> None:
        await self._qmp.execute("xen-save-devices-state", filename=str(target / _STATE), live=True)
        sealed = await self._seal_disk()
        await shielded(asyncio.to_thread(self._copy, sealed, target, diff))

    async def release(self) -> None:
        if not self._released:
            self._released = True
            self._process.release()
            await self._part()

    async def pick_up(self) -> None:
        """After another process: a snapshot it was in the middle of is given up, and the machine runs."""
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
        return self._console.text()

    def complaints(self) -> str:
        """What QEMU itself said on its error output."""
        return self._complaints.text().strip()

    def usage(self) -> HostUsage:
        assert self.pid is not None
        return _usage(self.pid)

    async def close(self) -> None:
        """Everything over, in order: the machine, then what speaks with it. Idempotent."""
        if not self._released:
            await self.kill()
        await self._part()

    async def _part(self) -> None:
        """Nothing speaks with it any more."""
        if self._released:
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)
        if self._stream is not None:
            await self._stream.close()
        await self._qmp.close()

    async def _top_layer(self) -> int:
        """The number of the layer the guest writes to."""
        numbers = {scratch_node(number): number for number in range(len(self._layers))}
        for device in await self._qmp.execute("query-block"):
            number = numbers.get(device.get("inserted", {}).get("node-name"))
            if number is not None:
                return number
        raise MachineGoneError(f"cannot take over machine {self._shape.machine}: it has no scratch disk")

    async def _seal_disk(self) -> list[Path]:
        """Nothing is written to the layers there are any more; an empty one takes what comes."""
        sealed = list(self._layers)
        layer = disk.add_layer(sealed, self._directory, self._shape.spec.scratch_mib)
        node = scratch_node(len(sealed))
        options = {**file_node(layer, "qcow2", read_only=False), "node-name": node, "backing": None}
        await self._qmp.execute("blockdev-add", **options)
        await self._qmp.execute("blockdev-snapshot", node=scratch_node(len(sealed) - 1), overlay=node)
        self._layers.append(layer)
        return sealed

    def _copy(self, sealed: Sequence[Path], target: Path, diff: bool) -> None:
        disk.seal(sealed, target)
        assert self.pid is not None
        try:
            memory.save(self.pid, self._shape.memory, self._shape.spec.memory_mib << 20, target / _MEMORY, diff=diff)
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
        console, complaints = self._outputs
        readers = [
            asyncio.create_task(_drain(console, self._console), name="qemu-console"),
            asyncio.create_task(_drain(complaints, self._complaints), name="qemu-stderr"),
        ]
        try:
            with contextlib.suppress(Exception):  # without it the end is known less well, and nothing else is lost
                await self._qmp.open()
            returncode = await self._process.wait()
            await asyncio.wait(readers, timeout=_LAST_WORDS_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._qmp.closed(), _LAST_WORDS_S)
        finally:
            for reader in readers:
                reader.cancel()
        return judge_exit(
            returncode, self.reason, killed=self._killed, console=self.console(), complaints=self.complaints()
        )


def judge_exit(returncode: int | None, reason: str, *, killed: bool, console: str, complaints: str) -> Exit:
    """How the machine ended, from all that is known of it; the status is None where QEMU was not a child of this process. Pure."""
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
    said = f": {complaints.splitlines()[-1]}" if complaints else ""
    return Exit(ExitCause.CRASHED, f"QEMU ended {_status(returncode)}{said}")


def _status(returncode: int | None) -> str:
    if returncode is None:
        return "with a status that is not known, as another process had started it"
    return f"by {signal.Signals(-returncode).name}" if returncode < 0 else f"with status {returncode}"


@asynccontextmanager
async def _started(
    spec: MachineSpec,
    directory: Path,
    accelerator: Accelerator,
    mapped: Path,
    layers: Sequence[Path],
    *,
    state: Path | None = None,
    tsc_khz: int | None = None,
    detached: bool = False,
) -> AsyncIterator[QemuMachine]:
    """QEMU, running as long as the context. The parent's copies of what it inherits are closed as soon as it has them: when it ends, its ends do."""
    async with AsyncExitStack() as stack:
        with contextlib.ExitStack() as inherited:
            agent = inherited.enter_context(_listening(directory, _AGENT))
            monitor = inherited.enter_context(_listening(directory, _MONITOR))
            state_fd = inherited.enter_context(_opened(state)) if state is not None else None
            plan = Plan(
                spec=spec,
                machine=directory.name,
                accelerator=accelerator,
                memory=mapped,
                layers=layers,
                agent_fd=agent.fileno(),
                monitor_fd=monitor.fileno(),
                state_fd=state_fd,
                tsc_khz=tsc_khz,
            )
            fds = [fd for fd in (plan.agent_fd, plan.monitor_fd, state_fd) if fd is not None]
            stdout, stderr, named = PIPE, PIPE, None
            if detached:
                stdout = inherited.enter_context(outlet.made(directory / _CONSOLE, lossy=False))
                stderr = inherited.enter_context(outlet.made(directory / _COMPLAINTS, lossy=True))
                named = await stack.enter_async_context(_outputs(directory))
            try:
                process = await stack.enter_async_context(
                    spawn(
                        command(plan),
                        stdout=stdout,
                        stderr=stderr,
                        pass_fds=fds,
                        grace=0,
                        hint=host.HINT,
                        detached=detached,
                    )
                )
            except ProcessError as error:
                raise HostError(str(error), hint=error.hint) from error
        shape = Shape(spec, directory.name, mapped, layers)
        machine = _attach(process, named or _piped(process), shape, directory)
        stack.push_async_callback(lambda: shielded(machine.close()))
        yield machine


@asynccontextmanager
async def _attended(directory: Path) -> AsyncIterator[tuple[Attended, Outputs]]:
    """The QEMU that was started, detached, for the machine with this directory. Raises MachineGoneError."""
    machine = directory.name
    async with AsyncExitStack() as stack:
        try:
            [pid] = owner.processes_of(machine)
            process = await stack.enter_async_context(attend(pid, lambda: pid in owner.processes_of(machine)))
            outputs = await stack.enter_async_context(_outputs(directory))
        except (ValueError, ProcessLookupError, FileNotFoundError) as error:
            raise MachineGoneError(f"cannot take over machine {machine}: it has ended") from error
        yield process, outputs


@asynccontextmanager
async def _outputs(directory: Path) -> AsyncIterator[Outputs]:
    async with outlet.reading(directory / _CONSOLE) as console, outlet.reading(directory / _COMPLAINTS) as complaints:
        yield console, complaints


def _piped(process: Process) -> Outputs:
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout, process.stderr


def _attach(process: Process | Attended, outputs: Outputs, shape: Shape, directory: Path) -> QemuMachine:
    def on_event(event: Event) -> None:
        if event["event"] == "SHUTDOWN":
            machine.reason = str(event.get("data", {}).get("reason", ""))

    named = (directory / _CONSOLE).exists()
    console: Tail = FileRing(directory / _RING, CONSOLE_BYTES) if named else Ring(CONSOLE_BYTES)
    qmp = Qmp(_connect(directory, _MONITOR), on_event)
    machine = QemuMachine(process, outputs, console, qmp, shape, directory)
    return machine


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


def _adopt(snapshot: Path, directory: Path) -> list[Path]:
    """Give the machine its own names for the files of the snapshot, so that it does not matter to it when the snapshot is removed."""
    layers = _layers(snapshot)
    for file in (snapshot / _MEMORY, *layers):
        disk.share(file, directory / file.name)
    return [directory / layer.name for layer in layers]


def _layers(directory: Path) -> list[Path]:
    return sorted(directory.glob("scratch.*"), key=lambda path: int(path.name.split(".")[1]))


async def _drain(source: asyncio.StreamReader, ring: Tail) -> None:
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


def _usage(pid: int) -> HostUsage:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        sizes = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    except (OSError, ValueError):
        return HostUsage(0.0, 0, 0)
    kib = {name: int(value.split()[0]) for name, value in sizes.items()}
    ticks = int(fields[11]) + int(fields[12])
    return HostUsage(
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
        resident_bytes=kib["Rss"] << 10,
        private_bytes=(kib["Private_Clean"] + kib["Private_Dirty"]) << 10,
    )
