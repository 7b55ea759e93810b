"""Machines for jobs: each a fork of its template, as many at once as the node carries, first come first served."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import msgspec

from firebrick.guest.client import Identity
from firebrick.home import Home
from firebrick.image.store import ImageStore
from firebrick.machine import (
    BootError,
    Driver,
    Machine,
    MachineSpec,
    Network,
    Snapshot,
    SnapshotError,
    launch,
    owner,
    restore,
)
from firebrick.node.container.built import StoredImages
from firebrick.node.container.image import ContainerImage, Containers, may_be_named
from firebrick.node.errors import NodeError, ToolLostError, told
from firebrick.node.guest import Loan, Say
from firebrick.node.kept.quota import Quota
from firebrick.node.kept.shelf import Entry, Kept, KeptShelf
from firebrick.node.order import Resources
from firebrick.node.pool.driver import network_kind, policy_of
from firebrick.node.pool.fixed import fix, identity_of
from firebrick.node.pool.template import Recipe, TemplateShelf, machine_spec
from firebrick.node.pool.turns import Turns
from firebrick.node.settings import NodeSettings
from firebrick.node.socket.roster import Roster
from firebrick.node.tool.name import StoredTool
from firebrick.node.tool.shelf import ToolShelf
from firebrick.workflow.container.container import Login

_KERNEL: Final = "debian"
_DISK_SPARED_MIB: Final = 1024


class Pool:
    """A `Lender`. `roster` has the machines that are lent, `built` the images made of Dockerfiles; `store` is where kernels and images come from, `tools`
    where those of tool caches do."""

    def __init__(
        self,
        home: Home,
        driver: Driver,
        settings: NodeSettings,
        *,
        capacity: int,
        store: ImageStore | None = None,
        tools: ToolShelf | None = None,
    ) -> None:
        self.capacity = capacity
        self.roster = Roster()
        self._home = home
        self._driver = driver
        self._settings = settings
        self._store = store or ImageStore(home)
        self._templates = TemplateShelf(
            home,
            driver,
            self._store,
            tools or ToolShelf(home.tools, settings.tools),
            kept=settings.templates_kept,
        )
        self._turns = Turns(capacity)
        self._containers = Containers(home, self._store, settings)
        self.built = StoredImages(self._store, limit_mib=settings.built_limit_mib)
        self.kept = KeptShelf(home, Quota(mib=settings.keep_mib, count=settings.keep_count))

    async def images(self) -> Sequence[str]:
        made = (image.name for image in self._store.list_images() if may_be_named(image.name))
        return sorted({*self._store.list_definitions(), *made})

    async def container(self, image: str, login: Login | None, say: Say) -> ContainerImage:
        """See `Lender.container`."""
        return await self._containers.ensure(image, login, _Spoken(say))

    @asynccontextmanager
    async def lend(
        self,
        image: str,
        resources: Resources,
        *,
        purpose: str,
        say: Say,
        node: Path | None = None,
        tools: Sequence[StoredTool] = (),
        companions: int = 0,
        tenant: str = "",
    ) -> AsyncIterator[Loan]:
        """See `Lender.lend`."""
        async with (
            self._turn(say, companions),
            self._lend(image, resources, purpose, say, tenant, node, tuple(tools)) as loan,
        ):
            yield loan

    def lend_companion(
        self, image: str, resources: Resources, *, purpose: str, say: Say, tenant: str = ""
    ) -> AbstractAsyncContextManager[Loan]:
        """See `Lender.lend_companion`."""
        return self._lend(image, resources, purpose, say, tenant)

    @asynccontextmanager
    async def lend_booted(self, image: str, resources: Resources, *, purpose: str, say: Say) -> AsyncIterator[Loan]:
        """See `Lender.lend_booted`."""
        recipe = await self._finalize(image, resources, say)
        began = time.perf_counter()
        async with launch(recipe.spec, self._driver, home=self._home.root) as machine:
            milliseconds = (time.perf_counter() - began) * 1000
            self._store.claim(recipe.image, machine.directory)
            with self.roster.registered(machine, image, purpose):
                yield self._loan(machine, image, milliseconds, start="boot")

    @asynccontextmanager
    async def _lend(
        self,
        image: str,
        resources: Resources,
        purpose: str,
        say: Say,
        tenant: str,
        node: Path | None = None,
        tools: tuple[StoredTool, ...] = (),
    ) -> AsyncIterator[Loan]:
        async with AsyncExitStack() as stack:
            plain = await self._finalize(image, resources, say)
            recipe = dataclasses.replace(plain, node=node, tools=tools, tenant=tenant)
            machine, milliseconds = await self._start(stack, recipe, identity_of(resources.fixed), say)
            stack.enter_context(self.roster.registered(machine, image, purpose))
            if resources.fixed is not None:
                await fix(machine, resources.fixed, recipe.kernel, purpose=purpose, say=say)
            yield self._loan(machine, image, milliseconds)

    @asynccontextmanager
    async def revive(
        self, taken: Snapshot, image: str, *, purpose: str, say: Say, companions: int = 0
    ) -> AsyncIterator[Loan]:
        """See `Lender.revive`."""
        async with self._turn(say, companions), self._revived(taken, image, purpose) as loan:
            yield loan

    def reopen(self, entry: Entry, *, purpose: str) -> AbstractAsyncContextManager[Loan]:
        """A machine that begins where that of a kept entry was: for those who look into it, so it waits for no turn. The entry may go then.

        Raises NodeError, SnapshotError, BootError, HostError."""
        return self._revived(entry.snapshot, entry.record.image, purpose)

    @asynccontextmanager
    async def _revived(self, taken: Snapshot, image: str, purpose: str) -> AsyncIterator[Loan]:
        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            # One that is kept may be gone by now, and could go while the machine starts; one that this run has made could not.
            is_kept = taken.path.is_relative_to(self._home.kept)
            async with self.kept.locked() if is_kept else nullcontext():
                found = Snapshot.load(taken.path) if is_kept else taken
                machine = await stack.enter_async_context(self._again(found))
            milliseconds = (time.perf_counter() - began) * 1000
            stack.enter_context(self.roster.registered(machine, image, purpose))
            yield self._loan(machine, image, milliseconds)

    @contextmanager
    def shelter(self) -> Iterator[Path]:
        """See `Lender.shelter`. Made as the directory of a machine is, so that it is found, and known to be nobody's, when this process dies."""
        name = owner.new_id()
        with owner.claimed(self._home.machines / name, name) as directory:
            yield directory

    @asynccontextmanager
    async def _turn(self, say: Say, companions: int) -> AsyncIterator[None]:
        if self._turns.must_wait():
            say(f"Waiting for a machine: the node carries {self.capacity} at once.")
        async with self._turns.take(1 + companions):
            yield

    def _loan(self, machine: Machine, image: str, milliseconds: float, start: str = "fork") -> Loan:
        return Loan(
            guest=machine,
            machine=machine.id,
            start=start,
            start_ms=milliseconds,
            scratch=machine.directory,
            image=image,
            save=machine.snapshot,
            keep=lambda record: self._keep(machine, image, record),
        )

    async def _keep(self, machine: Machine, image: str, record: Kept) -> Entry | None:
        """See `firebrick.node.guest.Keep`."""
        await asyncio.to_thread(self._check_room, machine.spec)
        async with self.kept.drafted(record.run, record.job) as draft:
            began = time.perf_counter()
            taken = await machine.snapshot(draft / "snapshot")
            milliseconds = (time.perf_counter() - began) * 1000
            cost = msgspec.structs.replace(record, milliseconds=milliseconds, bytes=taken.size, image=image)
            entry = await self.kept.put(draft, cost)
        if entry is not None:
            self._claim(machine.spec, entry.path)
        return entry

    def _check_room(self, spec: MachineSpec) -> None:
        """A snapshot may take what the machine's memory is. A disk that is full would fail the jobs of everybody. Raises NodeError."""
        free = shutil.disk_usage(self._home.root).free
        if free < (spec.memory_mib + _DISK_SPARED_MIB) << 20:
            raise NodeError(
                f"there are only {free >> 20} MiB free for the {spec.memory_mib} MiB of the machine",
                hint="`firebrick kept rm` removes what was kept before.",
            )

    def _claim(self, spec: MachineSpec, user: Path) -> None:
        """The image stays as long as what is kept of it."""
        for found in self._store.list_images():
            if found.path == spec.root:
                self._store.claim(found, user)

    def _again(self, taken: Snapshot) -> AbstractAsyncContextManager[Machine]:
        if taken.driver != self._driver.name:
            raise NodeError(
                f"the machine was kept under the driver {taken.driver}, and this node has {self._driver.name}",
                hint=f"Say --driver {taken.driver}.",
            )
        today = dataclasses.replace(taken.spec, policy=policy_of(self._settings))
        return self._fork(taken, today)

    async def prepare(self, image: str, resources: Resources, say: Say) -> None:
        """Make what a fork needs: kernel, image and template."""
        await self._templates.ensure(await self._finalize(image, resources, say), say)

    async def sweep(self) -> None:
        """Remove what processes that died while they made kernels or images, or fetched them, have left, and machines that were kept long enough."""
        await self._store.sweep()
        await asyncio.to_thread(self._containers.sweep)
        await self.kept.sweep()

    async def _finalize(self, image: str, resources: Resources, say: Say) -> Recipe:
        progress = _Spoken(say)
        found = await self._store.ensure_image(image, progress=progress)
        kernel = await self._store.ensure_kernel(_KERNEL, progress=progress)
        network = network_kind(self._settings) if resources.network or self._settings.network else Network.NONE
        policy = policy_of(self._settings)
        spec = machine_spec(found, kernel, resources, self._driver, network=network, policy=policy)
        return Recipe(spec=spec, image=found, kernel=kernel)

    async def _start(
        self, stack: AsyncExitStack, recipe: Recipe, identity: Identity | None, say: Say
    ) -> tuple[Machine, float]:
        """A fork, which is `identity` where that is given, and how long it took. A template it cannot be had from is made anew, once."""
        template = await self._template(recipe, say)
        began = time.perf_counter()
        try:
            machine = await stack.enter_async_context(self._fork(template, recipe.spec, identity))
        except (SnapshotError, BootError) as error:
            say(f"The template cannot be used and is made anew: {error}")
            await self._templates.discard(template)
            template = await self._template(recipe, say)
            began = time.perf_counter()
            machine = await stack.enter_async_context(self._fork(template, recipe.spec, identity))
        return machine, (time.perf_counter() - began) * 1000

    async def _template(self, recipe: Recipe, say: Say) -> Snapshot:
        """A tool that is lost is left out: the job has to do without it, and will see to that."""
        while True:
            try:
                return await self._templates.ensure(recipe, say)
            except ToolLostError as error:
                say(told(error))
                left = tuple(tool for tool in recipe.tools if tool.name.path != error.path)
                recipe = dataclasses.replace(recipe, tools=left)

    def _fork(
        self, template: Snapshot, spec: MachineSpec, identity: Identity | None = None
    ) -> AbstractAsyncContextManager[Machine]:
        """With the policy of `spec`: what may be reached can change after a template was made."""
        today = dataclasses.replace(template, spec=dataclasses.replace(template.spec, policy=spec.policy))
        return restore(today, self._driver, home=self._home.root, identity=identity)


class _Spoken:
    """The progress of images and kernels, as words."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def stage(self, text: str, *, total: float | None = None) -> None:  # noqa: ARG002 - the signature is Progress's
        self._say(text)

    def advance(self, done: float, *, total: float | None = None) -> None: ...

    def line(self, text: str) -> None: ...
