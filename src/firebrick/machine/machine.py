"""The running machine: what `launch`, `restore` and `adopt` give, for as long as their context lasts.

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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
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
from firebrick.machine import owner, record, snapshot
from firebrick.machine.driver import Baseline, Driver, Exit, ExitCause, HostUsage, VirtualMachine
from firebrick.machine.errors import MachineError, MachineGoneError, StateError
from firebrick.machine.meeting import meet
from firebrick.machine.network.policy import Forward
from firebrick.machine.place import Place, checked_name
from firebrick.machine.saving import Live, check_base
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.spec import MachineSpec
from firebrick.machine.state import Life, Operation, State
from firebrick.task import shielded

RUNG_S: Final = 2.0
END_PATIENCE_S: Final = 2.0
"""How long, in seconds, a machine whose connection was lost is given to end."""


@dataclass(frozen=True, slots=True)
class Usage:
    guest: GuestUsage
    host: HostUsage


Forked = Callable[[Snapshot, Place, str | None], AbstractAsyncContextManager["Machine"]]
"""What makes a fork: from a snapshot that was just taken, beside the machine in this place, with this hostname where it is to have one."""


class Machine:
    """A running machine. Made by `launch`, `restore` and `adopt`.

    What speaks to the guest raises StateError where the state does not allow it, MachineGoneError when the machine ends meanwhile, and what
    `firebrick.guest.errors` has. `id` and `directory` never change, `spec` and `identity` only by `rename`; `agent` is the whole of what the
    guest can be asked."""

    def __init__(
        self,
        spec: MachineSpec,
        place: Place,
        vm: VirtualMachine,
        identity: Identity,
        origin: Snapshot | None,
        forked: Forked,
    ) -> None:
        self.id = place.directory.name
        self.spec = spec
        self.directory = place.directory
        self.identity = identity
        self._place = place
        self._vm = vm
        self._agent: Agent | None = None
        self._life = Life(self.id)
        self._turn = asyncio.Lock()
        self._forked = forked
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
    def driver(self) -> Driver:
        """What it runs under, and its copies can."""
        return self._place.driver

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
                await self._live.thaw()
                self._life.enter(State.RUNNING)

    async def snapshot(self, directory: Path, base: Snapshot | None = None) -> Snapshot:
        """Save the machine, as it is, as the new directory `directory`; it goes on as before. Commands that run are in the snapshot, and go
        on there too, their output discarded. A paused machine runs for a moment meanwhile, its user processes frozen, and is paused after.

        With `base` only the memory that changed since is written: it must be the snapshot `self.base`, and must stay where it is. Raises
        SnapshotError, and then `directory` does not exist."""
        if base is None:
            return await self._take(directory, None, keep=True)
        check_base(self.id, base, self.base)
        with base.used():  # until it is noted there that another builds on it
            return await self._take(directory, base, keep=True)

    @property
    def base(self) -> Snapshot | None:
        """What a snapshot taken now can be a difference to: of QEMU's machines the one they were restored from."""
        known = {Baseline.NONE: None, Baseline.ORIGIN: self._origin, Baseline.LAST: self._last}
        return known[self._vm.baseline]

    @asynccontextmanager
    async def fork(self, *, hostname: str | None = None, forwards: Iterable[Forward] = ()) -> AsyncIterator[Machine]:
        """A copy of this machine that runs beside it, with an identity of its own. No port of the host leads to it but those of
        `forwards`. Raises HostError where another machine has one of these, SpecError where they have nothing to lead to."""
        self.spec.with_forwards(forwards)  # that cannot be: said before anything is saved
        async with self._copies(1, hostname, forwards) as [machine]:
            yield machine

    @asynccontextmanager
    async def forks(self, count: int, *, hostname: str | None = None) -> AsyncIterator[list[Machine]]:
        """So many copies, of one instant. No ports of the host lead to them."""
        async with self._copies(count, hostname, ()) as machines:
            yield machines

    async def rename(self, *, hostname: str | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Become another machine for whoever gets it now, as one from a pool does: a new identity, all of it, with this `hostname` where one is
        given; `labels` replace those of the specification. What runs in it goes on. Raises SpecError for a name no host can have."""
        async with self._turn, self._using():
            identity = Identity.fresh(checked_name(hostname or self.identity.hostname))
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
                with owner.releasing(self.directory):  # where it cannot be noted, it is not done
                    await self._vm.release()
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

    # --- for the context it was made in ---

    async def leave(self) -> None:
        """End it, unless it was released."""
        if self._life.state is State.RELEASED:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        else:
            await self.kill()

    @asynccontextmanager
    async def greeted(self, deadline: float, *, adopted: bool) -> AsyncIterator[None]:
        """The agent has answered and taken the identity; its connection is closed at the end."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(deadline):
                self._agent = await meet(self._vm, self.identity, stack, deadline, adopted=adopted, ended=self._watch)
            if self._place.detached:
                self._record()
            self._life.enter(State.RUNNING)
            yield

    # --- how ---

    async def _until_end(self) -> Exit:
        end = await self._vm.wait()
        if self._life.state is State.STOPPING and end.cause is ExitCause.REBOOT:
            # A kernel without ACPI has no other way to end than the one it would reboot by.
            end = Exit(ExitCause.POWEROFF, "the guest powered off")
        self._life.enter(State.ENDED)
        return end

    @property
    def _live(self) -> Live:
        assert self._agent is not None
        return Live(self._vm, self._agent, self.identity)

    def _record(self) -> None:
        """For whoever adopts it."""
        known = record.Record(
            driver=self.driver.name,
            spec=self.spec,
            hostname=self.identity.hostname,
            machine_id=self.identity.machine_id,
            origin=self._origin.path.absolute() if self._origin is not None else None,
        )
        record.write(self.directory, known)

    @asynccontextmanager
    async def _copies(
        self, count: int, hostname: str | None, forwards: Iterable[Forward]
    ) -> AsyncIterator[list[Machine]]:
        self._forks += 1
        async with AsyncExitStack() as stack:
            taken = await self._take(self.directory / f"fork-{self._forks}", None, keep=False)
            try:
                copied = taken.with_forwards(forwards)
                restores = [self._forked(copied, self._place, hostname) for _ in range(count)]
                machines = [await stack.enter_async_context(r) for r in restores]
            finally:  # they have their own names for its files
                shutil.rmtree(taken.path, ignore_errors=True)
            yield machines

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
        facts = await self.driver.facts(self.spec)
        with snapshot.drafted(directory) as draft:
            self._last = None  # until it is there, nothing is known of the difference to any
            try:
                await self._live.save(draft.path, diff=base is not None, paused=before is State.PAUSED)
            except ChannelError as error:
                raise await self._gone(error) from error
            if not keep:
                draft.keep(self.spec, self.driver.name, facts, digested=False)
                return Snapshot.load(directory)
            await shielded(
                asyncio.to_thread(draft.keep, self.spec, self.driver.name, facts, base=base, cache=self._place.cache)
            )
            self._last = Snapshot.load(directory)
            return self._last

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
            end = await asyncio.wait_for(self.wait(), END_PATIENCE_S)
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
