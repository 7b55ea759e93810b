"""What a node promises to those who use it: the server, the command line, a program.

    async with Node.open(home) as node:                # firebrick.node.node.Node, which is a `RunHost`
        async with node.start_run(order) as run:
            async for event in run.events():
                ...
            result = await run.result()

- A run starts when the context is entered. Nothing is raised for what goes wrong inside a run: it becomes its conclusion and message.
- `events` may be called any number of times, at any moment: each iterator starts at the first event and ends after `RunFinished`. Events are
  spooled to an anonymous file, so a slow or absent reader loses nothing, holds no memory and never slows the machine down; what bounds the
  file is the log limit of each job.
- `cancel` asks: processes get SIGINT, then SIGTERM, then SIGKILL; steps and jobs with `always()` or `cancelled()`
  still run, within the cancel limit.
- Leaving the context before the run has finished, by cancellation or otherwise, does not ask: machines are killed, artifacts so far stay.
  Even then `JobFinished` and `RunFinished` come, in this order, and the context is left only after everything is released.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from firebrick.node.event import CancelCause, Conclusion, Event
from firebrick.node.kept.shelf import Entry
from firebrick.node.order import Resources, RunOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """`message` is empty unless the job did not succeed and a sentence says why. `environment` is the one it waits for."""

    conclusion: Conclusion
    outputs: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """`jobs` holds every job of the run by its key, skipped ones too; of a called workflow its jobs, not the one that calls."""

    conclusion: Conclusion
    seconds: float
    jobs: Mapping[str, JobResult]
    message: str = ""


class LiveRun(Protocol):
    """One run, from the moment it was ordered."""

    @property
    def order(self) -> RunOrder: ...

    def events(self) -> AsyncIterator[Event]:
        """Every event of the run from the first on, as they come. Closing the iterator early is fine."""

    def cancel(self, cause: CancelCause) -> None:
        """Ask the run to end. Returns at once; idempotent: the first cause counts."""

    async def result(self) -> RunResult:
        """Wait until the run has finished. Any number of tasks may wait; cancelling one of them does not touch the run."""


class RunHost(Protocol):
    """What a node is to those who order runs."""

    @property
    def machines(self) -> int:
        """How many machines may live at once on this node; runs beyond that wait their turn inside `start_run`, first come first served."""

    def start_run(self, order: RunOrder) -> AbstractAsyncContextManager[LiveRun]:
        """Start a run. Any number at once. Entering does not wait for capacity: the jobs do."""

    def checkpoint(self, run: str, job: str | None, step: int) -> Entry:
        """The snapshot that was taken of a job of a run before its step `step`, counted from 1; of the only such job where none is named.

        Raises firebrick.node.errors.NodeError where none is kept."""

    async def prepare(self, image: str, resources: Resources) -> None:
        """Make what a job on `image` starts from (kernel, image, template), so that the first such job does not wait for it.

        Raises firebrick.node.errors.NodeError, or the error of the part that could not."""
