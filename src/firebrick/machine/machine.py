"""A machine: what `launch` and `restore` give, for as long as their context lasts.

The states and what may be asked in each are in `firebrick.machine.state`. Here is what happens on the way:

    launch      directory, then driver.boot, then the agent's hello within a deadline, then the machine's identity  -> running
    snapshot    agent freezes and syncs, processors stop, driver.save, processors go on, agent thaws                -> as before
    restore     directory, then driver.restore, then as launch: a restored machine gets an identity of its own      -> running
    fork        a snapshot that belongs to the machine, and a restore
    stop        the agent powers off, else what the driver has that is gentler than a kill, else that, each within a deadline -> ended

Leaving the context undoes it in the reverse order, whatever happened: the agent's connection, the virtual machine, the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Unpack

from firebrick.guest.client import (
    RUN_LIMIT,
    Agent,
    Completed,
    ExecOptions,
    Files,
    GuestUsage,
    Identity,
    Process,
    TreeCount,
    TreeLimits,
    Tunnel,
)
from firebrick.guest.errors import ChannelError, GuestError
from firebrick.home import Home
from firebrick.machine import owner, snapshot
from firebrick.machine.driver import Driver, Exit, ExitCause, HostUsage, VirtualMachine
from firebrick.machine.errors import BootError, MachineError, MachineGoneError, StateError
from firebrick.machine.fake import Fake
from firebrick.machine.firecracker import Firecracker, FirecrackerSettings
from firebrick.machine.qemu import Qemu
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.spec import MachineSpec
from firebrick.machine.state import Life, Operation, State
from firebrick.process import shielded

BOOT_DEADLINE_S: Final = 60.0
RUNG_S: Final = 2.0
_END_PATIENCE_S: Final = 2.0
_AGAIN_S: Final = 0.01
_REJOIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    guest: GuestUsage
    host: HostUsage


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a machine is: its driver, the home, its own directory."""

    driver: Driver
    home: Path
    directory: Path


class Machine:
    """A running machine. Made by `launch` and `restore`.

    What speaks to the guest raises StateError where the state does not allow it, MachineGoneError when the machine ends meanwhile, and what
    `firebrick.guest.errors` has. `id`, `spec`, `directory` and `identity` never change; `agent` is the whole of what the guest can be asked."""

    def __init__(self, spec: MachineSpec, place: _Place, vm: VirtualMachine, identity: Identity) -> None:
        self.id = place.directory.name
        self.spec = spec
        self.directory = place.directory
        self.identity = identity
        self._place = place
        self._driver = place.driver
        self._vm = vm
        self._agent: Agent | None = None
        self._life = Life(self.id)
        self._turn = asyncio.Lock()
        self._forks = 0
        self._watch = asyncio.create_task(self._until_end(), name=f"machine-{self.id}")

    @property
    def state(self) -> State:
        return self._life.state

    @property
    def pid(self) -> int | None:
        """Of the process on the host, where the driver has one."""
        return self._vm.pid

    @property
    def vm(self) -> VirtualMachine:
        """What the driver made: for what only one driver can do. What `Machine` has too must be asked of it, which keeps the state."""
        return self._vm

    @property
    def agent(self) -> Agent:
        """The guest's agent. Raises StateError when the machine is not there to be used."""
        self._life.admits(Operation.USE)
        assert self._agent is not None
        return self._agent

    @property
    def files(self) -> Files:
        """Operations on single files of the guest."""
        return self.agent.files

    # --- commands, trees, ports: see Agent ---

    @asynccontextmanager
    async def exec(self, argv: Sequence[str | bytes], **options: Unpack[ExecOptions]) -> AsyncIterator[Process]:
        """Run a command, no shell. The context begins when it has started and ends with it dead. See `Agent.exec`."""
        async with self._using(), self.agent.exec(argv, **options) as process:
            yield process

    async def run(
        self,
        argv: Sequence[str | bytes],
        *,
        input: bytes = b"",  # noqa: A002 - the word of subprocess.run
        check: bool = False,
        limit: int = RUN_LIMIT,
        **options: Unpack[ExecOptions],
    ) -> Completed:
        """Run a command to its end and gather its output. See `Agent.run`."""
        async with self._using():
            return await self.agent.run(argv, input=input, check=check, limit=limit, **options)

    async def upload(
        self,
        source: Path,
        target: str | bytes,
        *,
        only: Iterable[PurePath] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        exclude: Iterable[str | bytes] = (),
    ) -> TreeCount:
        """Send a directory. See `Agent.upload`."""
        async with self._using():
            return await self.agent.upload(source, target, only=only, uid=uid, gid=gid, exclude=exclude)

    async def download(
        self,
        source: str | bytes,
        target: Path,
        *,
        exclude: Iterable[str | bytes] = (),
        limits: TreeLimits = TreeLimits(),  # noqa: B008 - frozen
    ) -> TreeCount:
        """Bring a directory or file. See `Agent.download`."""
        async with self._using():
            return await self.agent.download(source, target, exclude=exclude, limits=limits)

    def connect_port(self, port: int, host: str = "127.0.0.1") -> AbstractAsyncContextManager[Tunnel]:
        """A TCP connection made inside the guest. See `Agent.connect_port`."""
        return self.agent.connect_port(port, host)

    # --- the machine ---

    async def pause(self) -> None:
        """Stop the virtual processors; the guest does not notice. Nothing where it is paused."""
        async with self._turn:
            if self._life.admits(Operation.PAUSE):
                with self._gone_is_said():
                    await self._vm.pause()
                self._life.enter(State.PAUSED)

    async def resume(self) -> None:
        """Let them go on. Nothing where it runs."""
        async with self._turn:
            if self._life.admits(Operation.RESUME):
                await self._thaw()
                self._life.enter(State.RUNNING)

    async def snapshot(self, directory: Path) -> Snapshot:
        """Save the machine, as it is, as the new directory `directory`; it goes on as before. Commands that run are in the snapshot, and go
        on there too, their output discarded. A paused machine runs for a moment meanwhile, its user processes frozen, and is paused after.

        Raises SnapshotError, and then `directory` does not exist."""
        async with self._turn:
            self._life.admits(Operation.SNAPSHOT)
            before = self._life.state
            self._life.enter(State.SAVING)
            try:
                return await self._save(directory, before)
            finally:
                self._life.enter(before)

    @asynccontextmanager
    async def fork(self, *, hostname: str | None = None) -> AsyncIterator[Machine]:
        """A copy of this machine that runs beside it, with an identity of its own."""
        async with self.forks(1, hostname=hostname) as [machine]:
            yield machine

    @asynccontextmanager
    async def forks(self, count: int, *, hostname: str | None = None) -> AsyncIterator[list[Machine]]:
        """So many copies, of one instant."""
        self._forks += 1
        async with AsyncExitStack() as stack:
            taken = await self.snapshot(self.directory / f"fork-{self._forks}")
            try:
                restores = [
                    restore(taken, self._driver, home=self._place.home, hostname=hostname) for _ in range(count)
                ]
                machines = [await stack.enter_async_context(r) for r in restores]
            finally:  # they have their own names for its files
                shutil.rmtree(taken.path, ignore_errors=True)
            yield machines

    async def stop(self, deadline: float = 10.0) -> Exit:
        """Power off: processes get SIGTERM, then SIGKILL, disks are synced. What has not ended after `deadline` seconds is asked in the ways
        the driver has beside the agent, for `RUNG_S` seconds each, and then killed."""
        async with self._turn:
            if self._life.admits(Operation.STOP):
                paused = self._life.state is State.PAUSED
                self._life.enter(State.STOPPING)
                with contextlib.suppress(GuestError, MachineError, TimeoutError):
                    async with asyncio.timeout(deadline):
                        await self._power_off(paused, deadline)
                await self._climb_down()
        return await self.kill()

    async def kill(self) -> Exit:
        """End it now. Idempotent."""
        if self._life.admits(Operation.KILL):
            await self._vm.kill()
        return await self.wait()

    async def wait(self) -> Exit:
        """Wait until it has ended, and say how."""
        return await asyncio.shield(self._watch)

    def console(self) -> str:
        """The last 64 KiB the guest wrote to its console; there after the end too."""
        return self._vm.console()

    async def usage(self) -> Usage:
        """What the machine uses, seen from inside and from the host."""
        async with self._using():
            return Usage(await self.agent.usage(), self._vm.usage())

    # --- how ---

    async def _until_end(self) -> Exit:
        end = await self._vm.wait()
        if self._life.state is State.STOPPING and end.cause is ExitCause.REBOOT:
            # A kernel without ACPI has no other way to end than the one it would reboot by.
            end = Exit(ExitCause.POWEROFF, "the guest powered off")
        self._life.enter(State.ENDED)
        return end

    @asynccontextmanager
    async def _greeted(self, deadline: float) -> AsyncIterator[None]:
        """The agent has answered and taken the identity; its connection is closed at the end."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(deadline):
                self._agent = await self._meet(stack, deadline)
            self._life.enter(State.RUNNING)
            yield

    async def _meet(self, stack: AsyncExitStack, deadline: float) -> Agent:
        """Connect and greet, again where the connection was lost on the way: a guest that has just been restored may drop the first."""
        while True:
            stream = await self._vm.channel()
            try:
                return await stack.enter_async_context(Agent.connect(stream, self.identity, timeout=deadline))
            except ChannelError as error:
                if self._watch.done() or isinstance(error.__cause__, GuestError):
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def _save(self, directory: Path, before: State) -> Snapshot:
        assert self._agent is not None
        facts = await self._driver.facts(self.spec)
        try:
            if before is State.PAUSED:
                await self._vm.resume()
            await self._agent.quiesce()
            await self._vm.pause()
            if self._vm.parts:
                await self._agent.part()
            with snapshot.created(directory, self.spec, self._driver.name, facts) as draft:
                await self._vm.save(draft)
        except ChannelError as error:
            raise await self._gone(error) from error
        finally:
            await shielded(self._settle(before))
        return Snapshot.load(directory)

    async def _settle(self, before: State) -> None:
        """After a save, as it was before it. A machine that was paused stays so, unless its agent has to be met again."""
        assert self._agent is not None
        parted = self._agent.parted
        if before is State.RUNNING or parted:
            await self._thaw()
        if before is State.PAUSED:
            with contextlib.suppress(MachineGoneError):
                await self._vm.pause()

    async def _thaw(self) -> None:
        """Processors first: the agent cannot answer without."""
        assert self._agent is not None
        try:
            await self._vm.resume()
            if self._agent.parted:
                await self._rejoin(self._agent)
            await self._agent.resume()
        except (MachineGoneError, ChannelError, OSError, TimeoutError) as error:  # it has ended: the state says so
            self._agent.lose(error)

    async def _rejoin(self, agent: Agent) -> None:
        """The first connection may be lost as well."""
        async with asyncio.timeout(_REJOIN_S):
            while True:
                stream = await self._vm.channel()
                try:
                    await agent.rejoin(stream, self.identity)
                except ChannelError:
                    await asyncio.sleep(_AGAIN_S)
                else:
                    return

    async def _power_off(self, paused: bool, deadline: float) -> None:
        assert self._agent is not None
        if paused:
            await self._vm.resume()
            await self._agent.resume()
        await self._agent.poweroff(grace=deadline / 2)
        await self._vm.wait()

    async def _climb_down(self) -> None:
        """The agent did not do it, or not in time: the driver's own ways, gentlest first."""
        for rung in self._vm.rungs():
            if self._watch.done():
                return
            with contextlib.suppress(MachineError, TimeoutError):
                async with asyncio.timeout(RUNG_S):
                    await rung()
                    await self.wait()

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[None]:
        """The loss of the connection is told as the end of the machine, where it is that."""
        try:
            yield
        except ChannelError as error:
            raise await self._gone(error) from error

    async def _gone(self, error: ChannelError) -> MachineError | ChannelError:
        with contextlib.suppress(TimeoutError):
            end = await asyncio.wait_for(self.wait(), _END_PATIENCE_S)
            return MachineGoneError(
                f"machine {self.id} ended while it was used: {end.message}", hint="`console()` has its last output."
            )
        return error

    @contextlib.contextmanager
    def _gone_is_said(self) -> Iterator[None]:
        try:
            yield
        except MachineGoneError as error:
            raise StateError(f"cannot pause machine {self.id}: it has ended") from error


@asynccontextmanager
async def launch(
    spec: MachineSpec,
    driver: str | Driver = "auto",
    *,
    directory: Path | None = None,
    home: Path | None = None,
    hostname: str | None = None,
    deadline: float = BOOT_DEADLINE_S,
) -> AsyncIterator[Machine]:
    """Boot a machine; it lives as long as the context.

    `driver` is "auto", "qemu", "firecracker", "fake" or a Driver. `home` is where machines and caches are kept (default: `FIREBRICK_HOME`, else
    `~/.firebrick`), `directory` the machine's own directory (default: `machines/ID` there), which must not exist. `deadline` is how long, in
    seconds, its agent may take to answer. Raises BootError, with the console, HostError and SpecError."""
    chosen, home = _choose(driver, home)
    async with AsyncExitStack() as stack:

        async def boot() -> Machine:
            place = _Place(chosen, home, stack.enter_context(_directory(directory, home)))
            return await stack.enter_async_context(
                _met(spec, place, chosen.boot(spec, place.directory), hostname, deadline)
            )

        try:
            machine = await boot()
        except BootError:
            if not chosen.stayed_silent(chosen.patience(deadline)):
                raise
            await stack.aclose()
            machine = await boot()
        chosen.answered()
        yield machine


@asynccontextmanager
async def restore(
    taken: Snapshot,
    driver: str | Driver = "auto",
    *,
    directory: Path | None = None,
    home: Path | None = None,
    hostname: str | None = None,
    deadline: float = BOOT_DEADLINE_S,
) -> AsyncIterator[Machine]:
    """Start a machine from a snapshot. Any number may be; each has an identity of its own. The rest is as with `launch`.

    Raises SnapshotError where the snapshot does not fit this host, BootError where the machine does not come up."""
    chosen, home = _choose(taken.driver if driver == "auto" else driver, home)
    taken.check_facts(await chosen.facts(taken.spec))
    with _directory(directory, home) as own:
        virtual = chosen.restore(taken.spec, taken.path, own)
        async with _met(taken.spec, _Place(chosen, home, own), virtual, hostname, deadline) as machine:
            yield machine


def _choose(driver: str | Driver, home: Path | None) -> tuple[Driver, Path]:
    """The driver of this name, and where it keeps its things. Raises MachineError for a name nobody has."""
    if driver == "firecracker":
        settings = FirecrackerSettings.from_environment()
        home = home or settings.state_dir or Home.find().root
        return Firecracker(home / "cache", settings), home
    home = home or Home.find().root
    if not isinstance(driver, str):
        return driver, home
    if driver in ("auto", "qemu"):
        return Qemu(home / "cache"), home
    if driver == "fake":
        return Fake(), home
    raise MachineError(f"there is no driver {driver!r}", hint="Say auto, qemu, firecracker or fake.")


def _directory(directory: Path | None, home: Path) -> AbstractContextManager[Path]:
    id = owner.new_id() if directory is None else directory.name  # noqa: A001
    return owner.claimed(directory or home / "machines" / id, id)


@asynccontextmanager
async def _met(
    spec: MachineSpec,
    place: _Place,
    virtual: AbstractAsyncContextManager[VirtualMachine],
    hostname: str | None,
    deadline: float,
) -> AsyncIterator[Machine]:
    """A virtual machine, met: from its start to an agent that takes requests."""
    async with AsyncExitStack() as stack:
        vm = await stack.enter_async_context(virtual)
        identity = Identity.fresh(hostname or f"{spec.hostname}-{place.directory.name}")
        machine = Machine(spec, place, vm, identity)
        stack.push_async_callback(lambda: shielded(machine.kill()))
        deadline = place.driver.patience(deadline)
        try:
            await stack.enter_async_context(machine._greeted(deadline))  # noqa: SLF001 - its other half
        except (GuestError, TimeoutError, OSError) as error:
            raise await _boot_error(machine, error, deadline) from error
        yield machine


async def _boot_error(machine: Machine, error: Exception, deadline: float) -> BootError:
    """Silent, or dead? A machine that lost its agent is most likely about to end: it is given a moment to."""
    end: Exit | None = None
    if not isinstance(error, TimeoutError):
        with contextlib.suppress(TimeoutError):
            end = await asyncio.wait_for(machine.wait(), _END_PATIENCE_S)
    if end is not None:
        what = f"it ended before its agent answered: {end.message}"
    elif isinstance(error, TimeoutError):
        what = f"its agent did not answer within {deadline:g} s"
    else:
        what = str(error)
    return BootError(
        f"machine {machine.id} did not start: {what}",
        hint="The console says more; a kernel without the modules for its devices, or an initramfs without the agent, ends like this.",
        console=machine.console(),
    )
