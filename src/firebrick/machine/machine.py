"""A machine: what `launch` and `restore` give, for as long as their context lasts.

The states and what may be asked in each are in `firebrick.machine.state`. Here is what happens on the way:

    launch      directory, then driver.boot, then the agent's hello within a deadline, then the machine's identity  -> running
    snapshot    agent freezes and syncs, processors stop, driver.save, processors go on, agent thaws                -> as before
    restore     directory, then driver.restore, then as launch: a restored machine gets an identity of its own      -> running
    fork        a snapshot that belongs to the machine, and a restore
    stop        the agent powers off, else what the driver has that is gentler than a kill, else that, each within a deadline -> ended
    adopt       the directory becomes this process's, then driver.adopt, then as launch, but with the names it has  -> running
    release     the directory becomes nobody's; the connection ends, the virtual machine does not                   (gone from here)

Leaving the context undoes it in the reverse order, whatever happened: the agent's connection, the virtual machine, the directory. What was
released is left as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
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
    Listener,
    Process,
    TreeCount,
    TreeEntry,
    TreeLimits,
    Tunnel,
)
from firebrick.guest.errors import ChannelError, GuestError
from firebrick.home import Home
from firebrick.machine import adoption, chain, owner, snapshot, trust
from firebrick.machine.driver import Baseline, Driver, Exit, ExitCause, HostUsage, VirtualMachine
from firebrick.machine.errors import BootError, MachineError, MachineGoneError, SnapshotError, StateError
from firebrick.machine.fake import Fake
from firebrick.machine.firecracker import Firecracker, FirecrackerSettings
from firebrick.machine.qemu import Qemu
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.spec import MachineSpec
from firebrick.machine.state import Life, Operation, State
from firebrick.task import shielded

BOOT_DEADLINE_S: Final = 60.0
RUNG_S: Final = 2.0
_END_PATIENCE_S: Final = 2.0
_AGAIN_S: Final = 0.01
_FIRST_TRY_S: Final = 2.0
_REJOIN_S: Final = 30.0
_WHOLE: Final = "whole"


@dataclass(frozen=True, slots=True)
class Usage:
    guest: GuestUsage
    host: HostUsage


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a machine is: its driver, the home, its own directory; whether it outlives this process."""

    driver: Driver
    home: Path
    directory: Path
    detached: bool

    @property
    def cache(self) -> Path:
        return self.home / "cache"


class Machine:
    """A running machine. Made by `launch`, `restore` and `adopt`.

    What speaks to the guest raises StateError where the state does not allow it, MachineGoneError when the machine ends meanwhile, and what
    `firebrick.guest.errors` has. `id` and `directory` never change, `spec` and `identity` only by `rename`; `agent` is the whole of what the
    guest can be asked."""

    def __init__(
        self, spec: MachineSpec, place: _Place, vm: VirtualMachine, identity: Identity, origin: Snapshot | None
    ) -> None:
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
        self._origin = origin
        self._last = origin
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

    async def upload_entries(self, entries: Iterable[TreeEntry], target: str | bytes) -> None:
        """Send entries that are in no directory. See `Agent.upload_entries`."""
        async with self._using():
            await self.agent.upload_entries(entries, target)

    async def archive(
        self,
        source: str | bytes,
        target: int,
        *,
        exclude: Iterable[str | bytes] = (),
        limits: TreeLimits = TreeLimits(),  # noqa: B008 - frozen
    ) -> TreeCount:
        """Write a directory as a tar archive to a file descriptor. See `Agent.archive`."""
        async with self._using():
            return await self.agent.archive(source, target, exclude=exclude, limits=limits)

    def connect_port(self, port: int, host: str = "127.0.0.1") -> AbstractAsyncContextManager[Tunnel]:
        """A TCP connection made inside the guest. See `Agent.connect_port`."""
        return self.agent.connect_port(port, host)

    def listen(self, port: int, address: str = "127.0.0.1") -> AbstractAsyncContextManager[Listener]:
        """Listen on the loopback inside the guest, for connections that come here. See `Agent.listen`."""
        return self.agent.listen(port, address)

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

    async def snapshot(self, directory: Path, base: Snapshot | None = None) -> Snapshot:
        """Save the machine, as it is, as the new directory `directory`; it goes on as before. Commands that run are in the snapshot, and go
        on there too, their output discarded. A paused machine runs for a moment meanwhile, its user processes frozen, and is paused after.

        With `base` only the memory that changed since is written: it must be the snapshot `self.base`, and must stay where it is. Raises
        SnapshotError, and then `directory` does not exist."""
        if base is not None:
            self._check_base(base)
        return await self._take(directory, base, keep=True)

    @property
    def base(self) -> Snapshot | None:
        """What a snapshot taken now can be a difference to: of QEMU's machines the one they were restored from."""
        known = {Baseline.NONE: None, Baseline.ORIGIN: self._origin, Baseline.LAST: self._last}
        return known[self._vm.baseline]

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
            taken = await self._take(self.directory / f"fork-{self._forks}", None, keep=False)
            try:
                restores = [_restored(taken, self._place, hostname) for _ in range(count)]
                machines = [await stack.enter_async_context(r) for r in restores]
            finally:  # they have their own names for its files
                shutil.rmtree(taken.path, ignore_errors=True)
            yield machines

    async def rename(self, *, hostname: str | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Become another machine for whoever gets it now, as one from a pool does: a new identity, all of it, with this `hostname` where one is
        given; `labels` replace those of the specification. What runs in it goes on. Raises GuestError for a name no host can have."""
        async with self._turn, self._using():
            identity = Identity.fresh(hostname or self.identity.hostname)
            await self.agent.identify(identity)
            self.identity = identity
            if labels is not None:
                self.spec = replace(self.spec, labels=dict(labels))
            if self._place.detached:
                self._record()

    async def release(self) -> None:
        """Leave a machine that was started detached to whoever adopts it: it runs on when the context is left, and this object is of no further
        use. Commands that were not detached end, as with every lost connection. Raises StateError for other machines."""
        async with self._turn:
            if not self._place.detached:
                raise StateError(
                    f"cannot release machine {self.id}: it was not made to outlive its process",
                    hint="Start machines that shall with `detached=True`.",
                )
            if self._life.admits(Operation.RELEASE):
                await self._vm.release()
                await asyncio.to_thread(owner.release, self.directory)
                self._life.enter(State.RELEASED)

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

    async def leave(self) -> None:
        """End it, unless it was released: for the context it was made in."""
        if self._life.state is State.RELEASED:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        else:
            await self.kill()

    async def _until_end(self) -> Exit:
        end = await self._vm.wait()
        if self._life.state is State.STOPPING and end.cause is ExitCause.REBOOT:
            # A kernel without ACPI has no other way to end than the one it would reboot by.
            end = Exit(ExitCause.POWEROFF, "the guest powered off")
        self._life.enter(State.ENDED)
        return end

    @asynccontextmanager
    async def _greeted(self, deadline: float, *, adopted: bool) -> AsyncIterator[None]:
        """The agent has answered and taken the identity; its connection is closed at the end."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(deadline):
                self._agent = await self._meet(stack, deadline, adopted=adopted)
            if self._place.detached:
                self._record()
            self._life.enter(State.RUNNING)
            yield

    async def _meet(self, stack: AsyncExitStack, deadline: float, *, adopted: bool) -> Agent:
        """Connect and greet, again where the connection is lost on the way: a guest that has just been restored may drop the first. An agent that
        was in the middle of a frame with its last host breaks the first one off, or does not hear it, and is well with the next: so one that is
        adopted is tried with more patience each time."""
        patience = _FIRST_TRY_S if adopted else deadline
        while True:
            try:
                stream = await self._vm.channel()
                meeting = Agent.connect(stream, self.identity, timeout=patience, takes_over=adopted)
                agent = await stack.enter_async_context(meeting)
                if adopted:
                    async with asyncio.timeout(patience):
                        await agent.ping()
            except (ChannelError, OSError) as error:  # TimeoutError is an OSError
                await stack.aclose()
                if self._watch.done() or not (adopted or _is_a_loss(error)):
                    raise
            else:
                return agent
            patience *= 2
            await asyncio.sleep(_AGAIN_S)

    def _record(self) -> None:
        """For whoever adopts it."""
        record = adoption.Record(
            driver=self._driver.name,
            spec=self.spec,
            hostname=self.identity.hostname,
            machine_id=self.identity.machine_id,
            origin=self._origin.path.absolute() if self._origin is not None else None,
        )
        adoption.write(self.directory, record)

    def _check_base(self, base: Snapshot) -> None:
        possible = self.base
        if possible is None or possible.digest != base.digest:
            why = (
                "what changed in its memory since is not known"
                if possible is None
                else f"only what changed since {possible.path} is known"
            )
            raise SnapshotError(
                f"cannot save machine {self.id} as a difference to {base.path}: {why}", hint="Take a full snapshot."
            )
        if len(base.chain) >= chain.LONGEST:
            raise SnapshotError(
                f"cannot save machine {self.id} as a difference to {base.path}: {chain.LONGEST} snapshots build on each other already",
                hint="Take a full snapshot, or make the base a full one with `flatten`.",
            )

    async def _take(self, directory: Path, base: Snapshot | None, *, keep: bool) -> Snapshot:
        async with self._turn:
            self._life.admits(Operation.SNAPSHOT)
            before = self._life.state
            self._life.enter(State.SAVING)
            try:
                return await self._save(directory, base, before, keep=keep)
            finally:
                self._life.enter(before)

    async def _save(self, directory: Path, base: Snapshot | None, before: State, *, keep: bool) -> Snapshot:
        """The machine goes on while digests are made. A snapshot that is not to be kept has none."""
        facts = await self._driver.facts(self.spec)
        with snapshot.drafted(directory) as draft:
            self._last = None  # until it is there, nothing is known of the difference to any
            await self._write(draft.path, before, diff=base is not None)
            if not keep:
                draft.keep(self.spec, self._driver.name, facts, digested=False)
                return Snapshot.load(directory)
            await shielded(
                asyncio.to_thread(draft.keep, self.spec, self._driver.name, facts, base=base, cache=self._place.cache)
            )
            self._last = Snapshot.load(directory)
            return self._last

    async def _write(self, target: Path, before: State, *, diff: bool) -> None:
        assert self._agent is not None
        try:
            if before is State.PAUSED:
                await self._vm.resume()
            await self._agent.quiesce()
            await self._vm.pause()
            if self._vm.parts:
                await self._agent.part()
            await self._vm.save(target, diff=diff)
        except ChannelError as error:
            raise await self._gone(error) from error
        finally:
            await shielded(self._settle(before))

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
    detached: bool = False,
) -> AsyncIterator[Machine]:
    """Boot a machine; it lives as long as the context.

    `driver` is "auto", "qemu", "firecracker", "fake" or a Driver. `home` is where machines and caches are kept (default: `FIREBRICK_HOME`, else
    `~/.firebrick`), `directory` the machine's own directory (default: `machines/ID` there), which must not exist. `deadline` is how long, in
    seconds, its agent may take to answer. A `detached` machine runs on when this process dies, and can be adopted by another then. Raises
    BootError, with the console, HostError and SpecError."""
    chosen, home = _choose(driver, home)
    async with AsyncExitStack() as stack:

        async def boot() -> Machine:
            place = _Place(chosen, home, stack.enter_context(_directory(directory, home)), detached)
            virtual = chosen.boot(spec, place.directory, detached=detached)
            return await stack.enter_async_context(_met(spec, place, virtual, _fresh(spec, place, hostname), deadline))

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
    identity: Identity | None = None,
    deadline: float = BOOT_DEADLINE_S,
    detached: bool = False,
) -> AsyncIterator[Machine]:
    """Start a machine from a snapshot. Any number may be; each has an identity of its own, unless one is given: two machines must then never be
    taken for one. The rest is as with `launch`.

    A snapshot that was not read through on this host before is now. Raises SnapshotError where it is damaged or does not fit this host,
    BootError where the machine does not come up."""
    chosen, home = _choose(taken.driver if driver == "auto" else driver, home)
    taken.check(await chosen.facts(taken.spec))
    if not all(trust.is_trusted(link, home / "cache") for link in taken.chain):
        await asyncio.to_thread(trust.verify, taken, home / "cache")
    with _directory(directory, home) as own:
        place = _Place(chosen, home, own, detached)
        async with _from(taken, place, hostname, deadline, origin=taken, identity=identity) as machine:
            yield machine


@asynccontextmanager
async def _restored(taken: Snapshot, like: _Place, hostname: str | None) -> AsyncIterator[Machine]:
    """A fork: from a snapshot that was just taken, and will be gone."""
    with _directory(None, like.home) as own:
        place = replace(like, directory=own, detached=False)
        async with _from(taken, place, hostname, BOOT_DEADLINE_S, origin=None) as machine:
            yield machine


@asynccontextmanager
async def _from(
    taken: Snapshot,
    place: _Place,
    hostname: str | None,
    deadline: float,
    *,
    origin: Snapshot | None,
    identity: Identity | None = None,
) -> AsyncIterator[Machine]:
    source = taken.path if taken.base is None else place.directory / _WHOLE
    if taken.base is not None:
        source.mkdir()
        await shielded(asyncio.to_thread(taken.make_whole, source))
    virtual = place.driver.restore(taken.spec, source, place.directory, detached=place.detached)
    identity = identity or _fresh(taken.spec, place, hostname)
    async with _met(taken.spec, place, virtual, identity, deadline, origin=origin) as machine:
        if taken.base is not None:
            await shielded(asyncio.to_thread(shutil.rmtree, source))
        yield machine


@asynccontextmanager
async def adopt(
    directory: Path, driver: str | Driver = "auto", *, home: Path | None = None, deadline: float = BOOT_DEADLINE_S
) -> AsyncIterator[Machine]:
    """Go on with a machine that was started detached by a process that is gone, or has released it: `directory` is the machine's. It keeps its
    names and what runs in it; commands that were not detached ended with their connection. It ends with this context, unless it is released.

    Raises AdoptionError where it has an owner, and of several who try, one gets it; MachineGoneError where it has ended, and then its directory
    is removed; BootError where its agent does not answer any more."""
    directory = directory.absolute()
    with owner.taken_over(directory):
        record = adoption.read(directory)
        chosen, home = _choose(record.driver if driver == "auto" else driver, home)
        if chosen.name != record.driver:
            raise MachineError(f"cannot take over the machine in {directory}: it is one of the driver {record.driver}")
        place = _Place(chosen, home, directory, detached=True)
        virtual = chosen.adopt(record.spec, directory)
        origin = _found(record.origin)
        async with _met(
            record.spec, place, virtual, record.identity(), deadline, origin=origin, adopted=True
        ) as machine:
            yield machine


def _is_a_loss(error: Exception) -> bool:
    """Whether the connection was lost, and not given up because of what came over it."""
    return isinstance(error, ChannelError) and not isinstance(error.__cause__, GuestError)


def _found(origin: Path | None) -> Snapshot | None:
    """What the machine was restored from, if it is there still."""
    with contextlib.suppress(SnapshotError):
        return Snapshot.load(origin) if origin is not None else None
    return None


def _fresh(spec: MachineSpec, place: _Place, hostname: str | None) -> Identity:
    return Identity.fresh(hostname or f"{spec.hostname}-{place.directory.name}")


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
    identity: Identity,
    deadline: float,
    *,
    origin: Snapshot | None = None,
    adopted: bool = False,
) -> AsyncIterator[Machine]:
    """A virtual machine, met: from its start to an agent that takes requests."""
    async with AsyncExitStack() as stack:
        vm = await stack.enter_async_context(virtual)
        machine = Machine(spec, place, vm, identity, origin)
        stack.push_async_callback(lambda: shielded(machine.leave()))
        deadline = place.driver.patience(deadline)
        try:
            await stack.enter_async_context(machine._greeted(deadline, adopted=adopted))  # noqa: SLF001 - its other half
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
