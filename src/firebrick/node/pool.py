"""Machines for jobs: each a fork of its template, as many at once as the node carries, first come first served."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from firebrick.home import Home
from firebrick.image.model import Image, Kernel
from firebrick.image.store import ImageStore
from firebrick.machine import BootError, Driver, Machine, MachineSpec, Network, Snapshot, SnapshotError, restore
from firebrick.node.container import ContainerImage, Containers
from firebrick.node.driver import network_kind, policy_of
from firebrick.node.guest import Loan, Say
from firebrick.node.order import Resources
from firebrick.node.roster import Roster
from firebrick.node.settings import NodeSettings
from firebrick.node.template import TemplateShelf, machine_spec
from firebrick.node.turns import Turns
from firebrick.workflow.container import Login

_KERNEL: Final = "debian"


class Pool:
    """A `Lender`. `roster` has the machines that are lent; `store` is where kernels and images come from."""

    def __init__(
        self, home: Home, driver: Driver, settings: NodeSettings, *, capacity: int, store: ImageStore | None = None
    ) -> None:
        self.capacity = capacity
        self.roster = Roster()
        self._home = home
        self._driver = driver
        self._settings = settings
        self._store = store or ImageStore(home)
        self._templates = TemplateShelf(home, driver, self._store, kept=settings.templates_kept)
        self._turns = Turns(capacity)
        self._containers = Containers(home, self._store, settings)

    async def images(self) -> Sequence[str]:
        return sorted({*self._store.list_definitions(), *(image.name for image in self._store.list_images())})

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
        companions: int = 0,
    ) -> AsyncIterator[Loan]:
        """See `Lender.lend`."""
        if self._turns.must_wait():
            say(f"Waiting for a machine: the node carries {self.capacity} at once.")
        async with (
            self._turns.take(1 + companions),
            self._lend(image, resources, purpose, say, node) as loan,
        ):
            yield loan

    def lend_companion(
        self, image: str, resources: Resources, *, purpose: str, say: Say
    ) -> AbstractAsyncContextManager[Loan]:
        """See `Lender.lend_companion`."""
        return self._lend(image, resources, purpose, say, None)

    @asynccontextmanager
    async def _lend(
        self, image: str, resources: Resources, purpose: str, say: Say, node: Path | None
    ) -> AsyncIterator[Loan]:
        async with AsyncExitStack() as stack:
            found, kernel, spec = await self._finalize(image, resources, say)
            machine, milliseconds = await self._start(stack, spec, found, kernel, say, node)
            stack.enter_context(self.roster.registered(machine, image, purpose))
            yield Loan(
                guest=machine, machine=machine.id, start="fork", start_ms=milliseconds, scratch=machine.directory
            )

    async def prepare(self, image: str, resources: Resources, say: Say) -> None:
        """Make what a fork needs: kernel, image and template."""
        found, kernel, spec = await self._finalize(image, resources, say)
        await self._templates.ensure(spec, found, kernel, say)

    async def sweep(self) -> None:
        """Remove what processes that died while they made kernels or images, or fetched them, have left."""
        await self._store.sweep()
        self._containers.sweep()

    async def _finalize(self, image: str, resources: Resources, say: Say) -> tuple[Image, Kernel, MachineSpec]:
        progress = _Spoken(say)
        found = await self._store.ensure_image(image, progress=progress)
        kernel = await self._store.ensure_kernel(_KERNEL, progress=progress)
        network = network_kind(self._settings) if resources.network or self._settings.network else Network.NONE
        policy = policy_of(self._settings)
        return found, kernel, machine_spec(found, kernel, resources, self._driver, network=network, policy=policy)

    async def _start(
        self, stack: AsyncExitStack, spec: MachineSpec, image: Image, kernel: Kernel, say: Say, node: Path | None
    ) -> tuple[Machine, float]:
        """A fork and how long it took. A template it cannot be had from is made anew, once."""
        template = await self._templates.ensure(spec, image, kernel, say, node)
        began = time.perf_counter()
        try:
            machine = await stack.enter_async_context(self._fork(template, spec))
        except (SnapshotError, BootError) as error:
            say(f"The template cannot be used and is made anew: {error}")
            self._templates.discard(template)
            template = await self._templates.ensure(spec, image, kernel, say, node)
            began = time.perf_counter()
            machine = await stack.enter_async_context(self._fork(template, spec))
        return machine, (time.perf_counter() - began) * 1000

    def _fork(self, template: Snapshot, spec: MachineSpec) -> AbstractAsyncContextManager[Machine]:
        """With the policy of `spec`: what may be reached can change after a template was made."""
        today = dataclasses.replace(template, spec=dataclasses.replace(template.spec, policy=spec.policy))
        return restore(today, self._driver, home=self._home.root)


class _Spoken:
    """The progress of images and kernels, as words."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def stage(self, text: str, *, total: float | None = None) -> None:  # noqa: ARG002 - the signature is Progress's
        self._say(text)

    def advance(self, done: float, *, total: float | None = None) -> None: ...

    def line(self, text: str) -> None: ...
