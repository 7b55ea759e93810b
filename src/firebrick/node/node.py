"""A node: owns the machines of one process, runs what it is ordered to, and answers those who want to look into its machines.

async with Node.open(Home.find()) as node:
    async with node.start_run(order) as run:
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from firebrick.home import Home
from firebrick.machine import Driver, reap
from firebrick.node.action.source import ActionSource
from firebrick.node.action.store import ActionStore
from firebrick.node.contract import LiveRun
from firebrick.node.descriptors import allow_descriptors
from firebrick.node.guest import Loan, Say
from firebrick.node.journal import Journal
from firebrick.node.kept.shelf import Entry, KeptShelf, Kind
from firebrick.node.order import Resources, RunOrder
from firebrick.node.pool.driver import Warn, check_privileges, open_driver
from firebrick.node.pool.pool import Pool
from firebrick.node.results.offer import NodeResults
from firebrick.node.run.run import start_run
from firebrick.node.run.turnstile import Turnstile
from firebrick.node.settings import NodeSettings, read_settings
from firebrick.node.socket.door import open_door
from firebrick.node.tool.shelf import ToolShelf
from firebrick.task import shielded


class Node:
    """A `RunHost`. Made by `open`."""

    def __init__(
        self,
        home: Home,
        pool: Pool,
        settings: NodeSettings,
        *,
        actions: ActionSource,
        results: NodeResults,
        tools: ToolShelf,
        socket: Path,
    ) -> None:
        self.home = home
        self.settings = settings
        self.socket = socket
        self._pool = pool
        self._actions = actions
        self._results = results
        self._tools = tools
        self._turnstile = Turnstile()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        home: Home,
        *,
        driver: Driver | None = None,
        capacity: int | None = None,
        settings: NodeSettings | None = None,
        warn: Warn = lambda _: None,
    ) -> AsyncIterator[Self]:
        """A node that lives as long as the context. `driver` defaults to the one of the settings, these to the home's, `capacity` (machines at
        once) to what they say; `warn` is told what one should not do with it. What dead processes have left in the home is ended and removed first.

        Raises NodeError for settings that cannot be read, or ask for what cannot be had."""
        told = settings or read_settings(home.config_file)
        if driver is None:
            check_privileges(told)
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(reap, home.machines)
        async with AsyncExitStack() as stack:
            chosen = await stack.enter_async_context(open_driver(home, told, warn)) if driver is None else driver
            tools = ToolShelf(home.tools, told.tools)
            pool = Pool(home, chosen, told, capacity=capacity or told.capacity, tools=tools)
            allow_descriptors(pool.capacity)
            await pool.sweep()
            actions = ActionStore(home.cache, told)
            await actions.sweep()
            await tools.sweep()
            stack.push_async_callback(pool.roster.close)
            results = NodeResults(home.results, told.results)
            stack.push_async_callback(lambda: shielded(results.close()))
            async with open_door(home.nodes, pool.roster) as socket:
                yield cls(home, pool, told, actions=actions, results=results, tools=tools, socket=socket)

    @property
    def machines(self) -> int:
        return self._pool.capacity

    @property
    def kept(self) -> KeptShelf:
        """The machines of failed steps, and checkpoints."""
        return self._pool.kept

    def checkpoint(self, run: str, job: str | None, step: int) -> Entry:
        """See `RunHost.checkpoint`."""
        return self.kept.find(run, job, f"before-{step}", kind=Kind.BEFORE)

    def reopen(self, entry: Entry, purpose: str) -> AbstractAsyncContextManager[Loan]:
        """A machine that begins where the kept one was, for as long as the context lasts. See `Pool.reopen`."""
        return self._pool.reopen(entry, purpose=purpose)

    def start_run(self, order: RunOrder) -> AbstractAsyncContextManager[LiveRun]:
        """See `RunHost.start_run`."""
        journal = Journal.create(self.home.runs)
        return start_run(
            order,
            self._pool,
            self.settings,
            journal,
            actions=self._actions,
            turnstile=self._turnstile,
            results=self._results,
            tools=self._tools,
        )

    async def prepare(self, image: str, resources: Resources, say: Say = lambda _: None) -> None:
        """See `RunHost.prepare`; `say` is told what is being done."""
        await self._pool.prepare(image, resources, say)
