"""Runs on guests in memory: real plans, real steps, the real agent client; only the machine is a double."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from firebrick.guest.client import Agent, Identity
from firebrick.guest.double.agent import GuestDouble
from firebrick.node.contract import RunResult
from firebrick.node.event import Annotation, ArtifactStored, Event, JobFinished, LogLine, StepFinished
from firebrick.node.guest import Loan
from firebrick.node.journal import Journal
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.node.run import Run, start_run
from firebrick.node.settings import NodeSettings
from firebrick.workflow.reader import read_workflow
from tests.unit.node.shell import shell

PATIENCE = 20.0


@dataclass
class DoubleLender:
    """Lends guests in memory; `lent` counts those out now, `most` how many there were at once."""

    capacity: int = 4
    failure: Exception | None = None
    lent: int = 0
    most: int = 0
    guests: list[GuestDouble] = field(default_factory=list)
    turns: asyncio.Semaphore | None = None

    async def images(self) -> list[str]:
        return ["base", "toolchain"]

    @asynccontextmanager
    async def lend(
        self, image: str, resources: Resources, *, purpose: str, say: Callable[[str], None]
    ) -> AsyncIterator[Loan]:
        self.turns = self.turns or asyncio.Semaphore(self.capacity)
        async with self.turns:
            if self.failure is not None:
                raise self.failure
            guest = GuestDouble(programs={"bash": shell, "sh": shell}, grace_s=0.05)
            self.guests.append(guest)
            self.lent += 1
            self.most = max(self.most, self.lent)
            try:
                async with Agent.connect(guest.connect(), Identity.fresh("job"), timeout=5) as agent:
                    with TemporaryDirectory() as scratch:
                        machine = f"m{len(self.guests)}"
                        yield Loan(guest=agent, machine=machine, start="fork", start_ms=1.0, scratch=Path(scratch))
            finally:
                self.lent -= 1
                await guest.close()
                assert guest.violations == []


@dataclass
class Told:
    """What a run has said."""

    events: list[Event]
    result: RunResult

    def lines(self, job: str = "build", step: int | None = None) -> list[str]:
        found = [e for e in self.events if isinstance(e, LogLine) and e.job == job]
        return [e.text for e in found if step is None or e.step == step]

    def steps(self, job: str = "build") -> list[str]:
        return [e.conclusion.value for e in self.events if isinstance(e, StepFinished) and e.job == job]

    def jobs(self) -> dict[str, str]:
        return {e.job: e.conclusion.value for e in self.events if isinstance(e, JobFinished)}

    def annotations(self) -> list[Annotation]:
        return [e for e in self.events if isinstance(e, Annotation)]

    def artifacts(self) -> list[ArtifactStored]:
        return [e for e in self.events if isinstance(e, ArtifactStored)]


@dataclass
class Bed:
    """Where runs are tried."""

    directory: Path
    lender: DoubleLender
    settings: NodeSettings

    def order(self, text: str, **fields: object) -> RunOrder:
        source = self.directory / "source"
        source.mkdir(exist_ok=True)
        return RunOrder(
            id="run-1",
            workflow=read_workflow(textwrap.dedent(text), "ci.yml"),
            source=Source(path=source, repository="octo/hello", ref="refs/heads/main", sha="a" * 40),
            artifact_dir=self.directory / "artifacts",
            **fields,
        )

    @asynccontextmanager
    async def live(self, text: str, **fields: object) -> AsyncIterator[Run]:
        journal = Journal.create(self.directory / "runs")
        async with asyncio.timeout(PATIENCE):
            async with start_run(self.order(text, **fields), self.lender, self.settings, journal) as run:
                yield run
            assert self.lender.lent == 0

    async def run(self, text: str, **fields: object) -> Told:
        async with self.live(text, **fields) as run:
            events = [event async for event in run.events()]
            return Told(events, await run.result())


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path, DoubleLender(), NodeSettings(interrupt_s=0.05, terminate_s=0.05, cancel_s=1.0))


@pytest.fixture
def forks(tmp_path: Path):
    """Runs on machines that can be saved."""
    from tests.unit.node.forks import Forks

    return Forks(tmp_path)
