"""One Firecracker process in its room: started, watched, ended. Knows nothing of machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
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
from firebrick.machine.ring import Ring
from firebrick.process import Process, ProcessError, shielded, spawn

CONSOLE_BYTES: Final = 64 << 10
_LOG_BYTES: Final = 16 << 10
_COMPLAINT_BYTES: Final = 4 << 10
_START_S: Final = 20.0
_FREEZE_S: Final = 2.0
_STATUS_S: Final = 2.0
_POLL_S: Final = 0.001
_POLL_MOST_S: Final = 0.01
HINT: Final = (
    "Firecracker needs /dev/kvm, readable and writable for who runs it; `firebrick doctor` says what is missing."
)


class Outputs:
    """What Firecracker and its guest write, each into a FIFO of the room that is read all the time."""

    def __init__(self, room: Room, stack: ExitStack) -> None:
        self.console = Ring(CONSOLE_BYTES)
        self.complaints = Ring(_COMPLAINT_BYTES)
        self.log = Ring(_LOG_BYTES)
        self.metrics = LastRecord()
        sinks = {
            config.CONSOLE: self.console.write,
            config.COMPLAINTS: self.complaints.write,
            config.LOG: self.log.write,
            config.METRICS: self.metrics.write,
        }
        self.pipes: dict[str, Pipe] = {}
        for name, sink in sinks.items():
            self.pipes[name] = Pipe(room.root / name, sink)
            stack.callback(self.pipes[name].close)
            room.own(name)

    def drain(self) -> None:
        for pipe in self.pipes.values():
            pipe.drain()


class Vmm:
    """A running Firecracker. `version` is known once `ready` has returned."""

    def __init__(self, process: Process, pid: int, room: Room, outputs: Outputs) -> None:
        """Raises ProcessLookupError when there is no such process any more."""
        self.pid = pid
        self.room = room
        self.outputs = outputs
        self.api = Api(room.root / config.API_SOCKET)
        self.version = Version(0, 0)
        self.killed = False
        self.failure = ""
        self._process = process
        self._pidfd = os.pidfd_open(pid)
        self._over = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        self._end = asyncio.create_task(self._watch(), name=f"firecracker-{pid}")

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    async def ready(self) -> Version:
        """Wait until it takes requests, and ask what it is. Raises HostError when it ends before, or takes too long."""
        wait = _POLL_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                while not self.ended:
                    with contextlib.suppress(MachineGoneError):  # it does not listen yet
                        said = await self.api.get("/version")
                        if not isinstance(said, dict):
                            raise HostError(f"Firecracker did not start: it says {str(said)[:80]!r} of its version")
                        self.version = Version.parse(str(said.get("firecracker_version")))
                        return self.version
                    await asyncio.sleep(wait)
                    wait = min(wait * 1.5, _POLL_MOST_S)
        what = (await self.wait()).message if self.ended else f"it does not listen after {_START_S:g} s"
        raise HostError(f"Firecracker did not start: {what}", hint=HINT)

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

    async def close(self) -> None:
        """End it, and what speaks with it. Idempotent."""
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
        """A jail may have put itself between: its room knows whose status is whose."""
        with contextlib.suppress(TimeoutError):
            return self.room.status(await asyncio.wait_for(self._process.wait(), _STATUS_S))
        return None


@asynccontextmanager
async def running(room: Room, netns: Path | None) -> AsyncIterator[Vmm]:
    """Firecracker in its room, ready to take requests, as long as the context. Raises HostError."""
    for name in (config.API_SOCKET, config.VSOCK_SOCKET):  # it takes no socket that is there
        (room.root / name).unlink(missing_ok=True)
    with ExitStack() as stack:
        outputs = Outputs(room, stack)
        async with _started(room, netns, outputs) as process:
            try:
                vmm = Vmm(process, await room.pid_of(process.pid), room, outputs)
            except (ProcessLookupError, HostError) as error:
                outputs.drain()
                complaint = outputs.complaints.text().strip() or str(error)
                raise HostError(f"Firecracker did not start: {complaint[-1000:]}", hint=HINT) from error
            try:
                await vmm.ready()
                yield vmm
            finally:
                await shielded(vmm.close())


@asynccontextmanager
async def _started(room: Room, netns: Path | None, outputs: Outputs) -> AsyncIterator[Process]:
    with contextlib.ExitStack() as inherited:
        stdout = inherited.enter_context(outputs.pipes[config.CONSOLE].writer())
        stderr = inherited.enter_context(outputs.pipes[config.COMPLAINTS].writer())
        argv = room.argv(config.arguments(), netns=netns)
        starting = spawn(argv, cwd=room.root, stdout=stdout, stderr=stderr, pass_fds=room.fds, grace=0, hint=HINT)
        try:
            process = await starting.__aenter__()
        except ProcessError as error:
            raise HostError(str(error), hint=error.hint) from error
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(starting)
        yield process
