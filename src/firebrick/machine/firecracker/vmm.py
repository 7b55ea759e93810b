"""One Firecracker process in its room: started, watched, ended. Knows nothing of machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from firebrick.machine.driver import Exit
from firebrick.machine.errors import HostError, MachineGoneError
from firebrick.machine.firecracker import config
from firebrick.machine.firecracker.api import Api
from firebrick.machine.firecracker.exits import Evidence, judge
from firebrick.machine.firecracker.pipe import LastRecord, Pipe
from firebrick.machine.firecracker.version import Version
from firebrick.machine.jail.room import Room
from firebrick.machine.ring import FileRing, Ring, Tail
from firebrick.process import Attended, Process, ProcessError, attend, spawn
from firebrick.task import shielded

CONSOLE_BYTES: Final = 64 << 10
_LOG_BYTES: Final = 16 << 10
_COMPLAINT_BYTES: Final = 4 << 10
_CONSOLE_RING: Final = "console.ring"
_LOG_RING: Final = "log.ring"
_START_S: Final = 20.0
_SAVE_S: Final = 300.0
_FREEZE_S: Final = 2.0
_STATUS_S: Final = 2.0
_POLL_S: Final = 0.001
_LOOK_S: Final = 0.01
_FIRST_WORD_S: Final = 0.5
HINT: Final = (
    "Firecracker needs /dev/kvm, readable and writable for who runs it; `firebrick doctor` says what is missing."
)


class Outputs:
    """What Firecracker and its guest write, each into a FIFO of the room that is read all the time. Where the machine may outlive this process
    `kept` is its directory, and what was read last of console and log is in files there."""

    def __init__(self, room: Room, stack: ExitStack, kept: Path | None = None) -> None:
        """Raises OSError."""
        self.console: Tail = Ring(CONSOLE_BYTES) if kept is None else FileRing(kept / _CONSOLE_RING, CONSOLE_BYTES)
        self.complaints = Ring(_COMPLAINT_BYTES)
        self.log: Tail = Ring(_LOG_BYTES) if kept is None else FileRing(kept / _LOG_RING, _LOG_BYTES)
        self.metrics = LastRecord()
        self.stirred = asyncio.Event()
        """Set by all that Firecracker itself says."""
        sinks = {
            config.CONSOLE: self.console.write,
            config.COMPLAINTS: self._stirring(self.complaints),
            config.LOG: self._stirring(self.log),
            config.METRICS: self.metrics.write,
        }
        self.pipes: dict[str, Pipe] = {}
        for name, sink in sinks.items():
            self.pipes[name] = Pipe(room.root / name, sink)
            stack.callback(self.pipes[name].close)

    def _stirring(self, tail: Tail) -> Callable[[bytes], None]:
        def write(piece: bytes) -> None:
            tail.write(piece)
            self.stirred.set()

        return write

    async def stir(self, patience: float) -> None:
        """Wait until Firecracker says something, for so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.stirred.wait()

    def close(self) -> None:
        """Read no more. Idempotent."""
        for pipe in self.pipes.values():
            pipe.close()

    def drain(self) -> None:
        for pipe in self.pipes.values():
            pipe.drain()


class Vmm:
    """A running Firecracker. `version` is known once `ready` has returned."""

    def __init__(self, process: Process | Attended, pid: int, room: Room, outputs: Outputs) -> None:
        """Raises ProcessLookupError when there is no such process any more."""
        self.pid = pid
        self.room = room
        self.outputs = outputs
        self.api = Api(room.root / config.API_SOCKET)
        self.version = Version(0, 0)
        self.killed = False
        self.failure = ""
        self._process = process
        self._released = False
        self._pidfd = os.pidfd_open(pid)
        self._over = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        self._end = asyncio.create_task(self._watch(), name=f"firecracker-{pid}")

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    async def ready(self, patience: float = _START_S, *, version: Version | None = None) -> Version:
        """Wait until it takes requests, and ask what it is, unless `version` says so. Raises HostError when it ends before, or takes longer than
        `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not self.ended:
                    if self.api.is_there:
                        with contextlib.suppress(OSError, MachineGoneError):  # it does not listen yet
                            await self.api.connect()
                            self.version = version or await self._asked(patience)
                            return self.version
                    self.outputs.stirred.clear()
                    await self.outputs.stir(_LOOK_S)  # it says so when it listens; else it is looked for
        what = (await self.wait()).message if self.ended else f"it does not answer after {patience:g} s"
        raise HostError(f"Firecracker did not start: {what}", hint=HINT)

    async def _asked(self, patience: float) -> Version:
        said = await self.api.call("GET", "/version", deadline=patience)
        if not isinstance(said, dict):
            raise HostError(f"Firecracker did not start: it says {str(said)[:80]!r} of its version")
        return Version.parse(str(said.get("firecracker_version")))

    def signal(self, number: int) -> None:
        """Ignored when it has ended."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def freeze(self) -> None:
        """Stop all of it, guest and API, where it stands; returns when it stands."""
        self.signal(signal.SIGSTOP)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_FREEZE_S):
                while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZX":  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def fail(self, reason: str) -> None:
        """End it because something it cannot do without has ended."""
        if not self.ended:
            self.failure = reason
            self.signal(signal.SIGKILL)

    async def kill(self) -> Exit:
        """Idempotent."""
        if not self.ended:
            self.killed = True
            self.signal(signal.SIGKILL)
        return await self.wait()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    def metrics(self) -> Mapping[str, Any]:
        return self.outputs.metrics.value()

    def log(self) -> str:
        return self.outputs.log.text()

    async def release(self) -> None:
        """Let it live on; nothing here speaks with it any more. Idempotent."""
        if not self._released:
            self._released = True
            self._process.release()
            self.room.leave()
            self.outputs.close()
            asyncio.get_running_loop().remove_reader(self._pidfd)
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)
            await self.api.close()

    async def close(self) -> None:
        """End it unless it was released, and what speaks with it. Idempotent."""
        if not self._released:
            await self.kill()
        await self.api.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._over.set()

    async def _watch(self) -> Exit:
        await self._over.wait()
        outputs = self.outputs
        status = await self._status()
        outputs.drain()
        return judge(
            Evidence(
                status=status,
                killed=self.killed,
                failure=self.failure,
                starved=self.room.out_of_memory(),
                console=outputs.console.text(),
                log=outputs.log.text(),
                complaints=outputs.complaints.text(),
            )
        )

    async def _status(self) -> int | None:
        """A jail may have put itself between: its room knows whose status is whose. None where another process started it."""
        with contextlib.suppress(TimeoutError):
            status = await asyncio.wait_for(self._process.wait(), _STATUS_S)
            return None if status is None else self.room.status(status)
        return None


@asynccontextmanager
async def running(
    room: Room, netns: Path | None, kept: Path | None = None, *, version: Version | None = None
) -> AsyncIterator[Vmm]:
    """Firecracker in its room, ready to take requests, as long as the context, unless it is released: for that `kept` is the machine's directory. It is
    asked for its version where `version` does not say it.

    Raises HostError."""
    for name in (config.API_SOCKET, config.VSOCK_SOCKET):  # it takes no socket that is there
        (room.root / name).unlink(missing_ok=True)
    with ExitStack() as stack:
        outputs = Outputs(room, stack, kept)
        for name in outputs.pipes:
            room.own(name)
        async with _started(room, netns, outputs, detached=kept is not None) as process:
            try:
                await outputs.stir(_FIRST_WORD_S)  # who looks for it before takes time from what starts it
                vmm = Vmm(process, await room.pid_of(process.pid), room, outputs)
            except (ProcessLookupError, HostError) as error:
                outputs.drain()
                complaint = outputs.complaints.text().strip() or str(error)
                raise HostError(f"Firecracker did not start: {complaint[-1000:]}", hint=HINT) from error
            try:
                await vmm.ready(version=version)
                yield vmm
            finally:
                await shielded(vmm.close())


@asynccontextmanager
async def attended(room: Room, pid: int, is_right: Callable[[], bool], kept: Path) -> AsyncIterator[Vmm]:
    """The Firecracker `pid` that another process has left in its room, as long as the context, unless it is released again; `is_right` is asked
    whether it is the one. A save that goes on is waited for.

    Raises ProcessLookupError where it has ended, OSError, HostError."""
    with ExitStack() as stack:
        async with attend(pid, is_right) as process:
            vmm = Vmm(process, pid, room, Outputs(room, stack, kept))
            try:
                vmm.thaw()
                await vmm.ready(_SAVE_S)
                yield vmm
            finally:
                await shielded(vmm.close())


@asynccontextmanager
async def _started(room: Room, netns: Path | None, outputs: Outputs, *, detached: bool) -> AsyncIterator[Process]:
    with contextlib.ExitStack() as inherited:
        stdout = inherited.enter_context(outputs.pipes[config.CONSOLE].writer())
        stderr = inherited.enter_context(outputs.pipes[config.COMPLAINTS].writer())
        argv = room.argv(config.arguments(), netns=netns)
        starting = spawn(
            argv,
            cwd=room.root,
            stdout=stdout,
            stderr=stderr,
            pass_fds=room.fds,
            grace=0,
            hint=HINT,
            detached=detached,
        )
        try:
            process = await starting.__aenter__()
        except ProcessError as error:
            raise HostError(str(error), hint=error.hint) from error
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(starting)
        yield process
