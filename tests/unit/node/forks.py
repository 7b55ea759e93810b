"""Runs on machines that can be saved: the node's own pool over the fake driver, with kernels and images that are small files."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from firebrick.home import Home
from firebrick.machine import Fake
from firebrick.node.journal import Journal
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.node.pool.pool import Pool
from firebrick.node.run.run import Run, start_run
from firebrick.node.settings import NodeSettings
from firebrick.node.tool.limits import ToolLimits
from firebrick.node.tool.shelf import ToolShelf
from firebrick.workflow.reader import read_workflow
from tests.unit.node.conftest import NODE, PATIENCE, DoubleActions, Told
from tests.unit.node.pool.test_pool import FileStore
from tests.unit.node.shell import shell

SETTINGS = NodeSettings(interrupt_s=0.05, terminate_s=0.05, cancel_s=1.0)
RESOURCES = Resources(vcpus=1, memory_mib=128, scratch_mib=64)


@dataclass
class Forks:
    """Where such runs are tried."""

    directory: Path
    settings: NodeSettings = SETTINGS
    capacity: int = 4
    resources: Resources = RESOURCES
    driver: Fake = field(default_factory=lambda: Fake(programs={"bash": shell, "sh": shell, NODE: shell}))

    def __post_init__(self) -> None:
        self.store = FileStore(self.directory)
        self.actions = DoubleActions(self.directory / "actions")
        self.tools = ToolShelf(self.home.tools, ToolLimits(free_mib=1))

    @property
    def home(self) -> Home:
        return Home(self.directory / "home")

    def pool(self) -> Pool:
        return Pool(self.home, self.driver, self.settings, capacity=self.capacity, store=self.store, tools=self.tools)

    def order(self, text: str, *, id: str = "run-1", **fields: object) -> RunOrder:  # noqa: A002 - the field of the order
        source = self.directory / "source"
        source.mkdir(exist_ok=True)
        return RunOrder(
            id=id,
            workflow=read_workflow(textwrap.dedent(text), "ci.yml"),
            source=Source(path=source, repository="octo/hello", ref="refs/heads/main", sha="a" * 40),
            artifact_dir=self.directory / "artifacts" / id,
            resources=self.resources,
            **fields,
        )

    @asynccontextmanager
    async def live(self, text: str, **fields: object) -> AsyncIterator[Run]:
        journal = Journal.create(self.directory / "runs")
        async with asyncio.timeout(PATIENCE):
            async with start_run(
                self.order(text, **fields), self.pool(), self.settings, journal, actions=self.actions
            ) as run:
                yield run
        assert all(machine.ended for machine in self.driver.machines)
        machines = self.home.machines
        assert not machines.is_dir() or list(machines.iterdir()) == []

    async def run(self, text: str, **fields: object) -> Told:
        async with self.live(text, **fields) as run:
            events = [event async for event in run.events()]
            return Told(events, await run.result())
