"""Steps that run in the background, and the steps that wait for them or cancel them.

Each runs as any other step, on a bench of its own: what it leaves - outputs, variables, directories of PATH, how it ended - is the job's when a step
waits for it, or the job does at its end. At most ten run at once; the others wait for their turn, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from firebrick.node.action.use import Entry
from firebrick.node.errors import StepError, told
from firebrick.node.log import NODE_STEP
from firebrick.node.step.bench import Bench
from firebrick.node.step.filecommand import add_environment, add_path
from firebrick.node.step.intime import in_time
from firebrick.node.step.launch import Ending
from firebrick.node.step.step import run_step
from firebrick.workflow.command.file import FileCommandError, file_command_failed
from firebrick.workflow.outcome import CANCELLED, FAILURE, SKIPPED, SUCCESS, StepOutcome
from firebrick.workflow.syntax import Control, ControlKind

MOST_AT_ONCE: Final = 10
_MOST_NAMES: Final = 50
"""So many steps are named in one line."""
_SAID: Final = {
    ControlKind.WAIT: (
        "Waiting for background step(s) to complete",
        "Finished waiting for background step(s).",
    ),
    ControlKind.WAIT_ALL: (
        "Waiting for all background step(s) to complete",
        "Finished waiting for all background step(s).",
    ),
    ControlKind.CANCEL: (
        "Cancelling background step(s)",
        "Finished cancelling background step(s).",
    ),
}
_WORDS: Final = {SUCCESS: "Succeeded", FAILURE: "Failed", CANCELLED: "Canceled", SKIPPED: "Skipped"}


class BackgroundStep:
    """One that has begun. `decided`: its condition was asked, and it has its turn or waits for one. `ending` is None until it has ended;
    `answered`: a step that waited has ended as this one did; `ran`: it had its turn."""

    def __init__(self, bench: Bench, number: int, entry: Entry, turns: asyncio.Semaphore) -> None:
        self.bench = bench
        self.number = number
        self.entry = entry
        self.decided = asyncio.Event()
        self.ending: Ending | None = None
        self.answered = False
        self.ran = False
        self._turns = turns

    @property
    def title(self) -> str:
        return self.bench.title or self.bench.log.mask(self.entry.step.display_name)

    @property
    def conclusion(self) -> str:
        return self.ending.conclusion if self.ending is not None else CANCELLED

    async def run(self) -> None:
        """To its end. Raises what loses the job: ChannelError, MachineError."""
        try:
            self.ending = await run_step(self.bench, self.number, self.entry, turn=self)
        finally:
            self.decided.set()
            self.bench.cancellation.close()
            if self.ran:
                self.bench.variables.forget()
                self._turns.release()

    async def take(self) -> None:
        """Its turn. Raises StepCancelledError where it is to end before it comes."""
        if self._turns.locked():
            self.decided.set()
        await in_time(self.bench, None, self._turns.acquire())
        self.ran = True
        self.bench.stand_alone()

    def taken(self) -> None:
        """It runs from now on."""
        self.decided.set()


class Background:
    """Those of one job. Made by `open_background`; used by the task that goes through the steps of the job."""

    def __init__(self, bench: Bench, tasks: asyncio.TaskGroup) -> None:
        self._bench = bench
        self._tasks = tasks
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._steps: dict[Entry, BackgroundStep] = {}
        self._open: dict[int, BackgroundStep] = {}  # by number: those whose effects are not the job's yet
        self._tasks_of: dict[BackgroundStep, asyncio.Task[None]] = {}

    def pending(self, besides: int = -1) -> bool:
        """Whether there are steps, `besides` that with this number, whose effects are not the job's yet."""
        return len(self._open) > (besides in self._open)

    async def begin(self, number: int, entry: Entry) -> None:
        """Begin the step, if its condition holds; returns when that is known."""
        step = BackgroundStep(self._bench.beside(), number, entry, self._turns)
        self._steps[entry] = self._open[number] = step
        task = self._tasks.create_task(step.run(), name=f"step-{self._bench.log.job}-{number}")
        self._tasks_of[step] = task
        await step.decided.wait()
        if step.ending is not None and step.ending.outcome == SKIPPED:
            self._join(step)

    async def control(self, number: int, control: Control) -> Ending:
        """Do what step `number` says of those that have begun. What was skipped, or is not in this run of the job, is passed over."""
        steps, log = self._meant(control), self._bench.log
        before, after = _SAID[control.kind]
        empty = not steps and control.kind is ControlKind.WAIT_ALL
        log.line(number, "No background steps remaining to wait for." if empty else f"{before}: {_names(steps)}")
        if control.kind is ControlKind.CANCEL:
            self._stop(steps)
        await self._ended(steps)
        failed = self._join_all(steps, number)
        log.line(number, after)
        for step in steps:
            log.line(number, f"  {step.title}: {_WORDS[step.conclusion]}")
        if control.kind is ControlKind.CANCEL:
            return Ending(outcome=FAILURE if failed else SUCCESS)
        for step in steps:
            step.answered = True
        return Ending(outcome=FAILURE if failed else _together(steps))

    async def finish(self) -> None:
        """Wait for all that nobody has waited for: the last step of the job is over. One that has failed fails the job, also where a step cancelled
        it later."""
        left = tuple(self._open.values())
        if left:
            self._bench.log.node(f"Waiting for the steps that still run in the background: {_names(left)}")
        await self._ended(left)
        failed = self._join_all(left, NODE_STEP)
        unanswered = (step for step in self._steps.values() if not step.answered)
        self._bench.failed |= failed or any(step.conclusion == FAILURE for step in unanswered)

    def _meant(self, control: Control) -> Sequence[BackgroundStep]:
        if control.kind is ControlKind.WAIT_ALL:
            return tuple(self._open.values())
        named = (self._steps.get(self._bench.entries[target]) for target in control.targets)
        return tuple(step for step in named if step is not None and step.conclusion != SKIPPED)

    def _stop(self, steps: Iterable[BackgroundStep]) -> None:
        for step in steps:
            if not self._tasks_of[step].done():
                step.bench.cancellation.stop()

    async def _ended(self, steps: Iterable[BackgroundStep]) -> None:
        """Until all of them have. What loses the job ends this, too: the group cancels it."""
        if tasks := [self._tasks_of[step] for step in steps]:
            await asyncio.wait(tasks)

    def _join_all(self, steps: Iterable[BackgroundStep], number: int) -> bool:
        """Make what they left the job's; whether something could not be, which step `number` says."""
        failed = False
        for step in steps:
            try:
                self._join(step)
            except (FileCommandError, StepError) as error:
                self._bench.log.fault(number, file_command_failed("env"))
                self._bench.log.fault(number, told(error))
                failed = True
        return failed

    def _join(self, step: BackgroundStep) -> None:
        """Raises FileCommandError where the environment of the job would be too much."""
        if step.ending is None or self._open.pop(step.number, None) is None:
            return
        if step.entry.step.id:
            ending = step.ending
            self._bench.outcomes[step.entry.step.id] = StepOutcome(ending.outcome, ending.conclusion, ending.outputs)
        if step.ran:
            left = step.bench.variables
            add_path(self._bench, left.new_path)
            add_environment(self._bench, left.new_env)


def _names(steps: Sequence[BackgroundStep]) -> str:
    more = f" and {len(steps) - _MOST_NAMES} more" if len(steps) > _MOST_NAMES else ""
    return ", ".join(step.title for step in steps[:_MOST_NAMES]) + more or "(none)"


def _together(steps: Iterable[BackgroundStep]) -> str:
    """How who waited for them ends. That a step was cancelled by another one is what was wanted."""
    conclusions = {step.conclusion for step in steps if not (step.bench.stopped and step.conclusion == CANCELLED)}
    return next((each for each in (FAILURE, CANCELLED) if each in conclusions), SUCCESS)


@asynccontextmanager
async def open_background(bench: Bench) -> AsyncIterator[Background]:
    """While the context lasts; at its end no step runs any more. Raises what a step has raised that loses the job: ChannelError, MachineError."""
    try:
        async with asyncio.TaskGroup() as tasks:
            background = bench.background = Background(bench, tasks)
            yield background
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
