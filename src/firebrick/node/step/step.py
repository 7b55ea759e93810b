"""One step of a job, as it is reported: a phase of it with what is said before and after."""

from __future__ import annotations

import time
from typing import Final, Protocol

from firebrick.node.action.use import Entry, Phase
from firebrick.node.event import Conclusion, StepFinished, StepStarted
from firebrick.node.step.bench import Bench
from firebrick.node.step.launch import Ending
from firebrick.node.step.phase import perform
from firebrick.workflow.expression.expression import EvaluationError
from firebrick.workflow.outcome import FAILURE, SKIPPED
from firebrick.workflow.syntax import Step

_LONGEST_NAME: Final = 1000
"""Characters of a name that comes out of an expression. It is in no log, and nothing else bounds it."""

_BEFORE = {Phase.PRE: "Pre ", Phase.MAIN: "", Phase.POST: "Post "}


class Turn(Protocol):
    """What a step waits for once it is known that it runs."""

    async def take(self) -> None:
        """Raises StepCancelledError where the step is to end before its turn has come."""

    def taken(self) -> None:
        """The step was reported, and begins."""


async def run_step(
    bench: Bench, number: int, entry: Entry, phase: Phase = Phase.MAIN, *, turn: Turn | None = None
) -> Ending:
    """Run the phase if its condition holds, report it as step `number` of the job, and record it for the steps after it.

    Raises what loses the job: ChannelError, MachineError."""
    began, name = time.monotonic(), ""

    async def begin() -> None:
        nonlocal name, began
        if turn is not None:
            await turn.take()
            began = time.monotonic()
        name = bench.title = _BEFORE[phase] + await _name(bench, entry.step)
        bench.log.emit(StepStarted(at=time.time(), job=bench.log.job, step=number, name=name))
        bench.variables.command = None
        if phase is Phase.MAIN:
            await bench.keeper.before(bench, number, entry, name)
        if turn is not None:
            turn.taken()

    ending = await perform(bench, number, entry, phase, begin)
    if ending.conclusion == FAILURE and entry.step.control is None:
        await bench.keeper.failed(bench, number, entry, name, ending.exit_code)
    unheard = phase is Phase.POST and ending.conclusion == SKIPPED
    bench.log.emit(
        StepFinished(
            at=time.time(),
            job=bench.log.job,
            step=number,
            conclusion=Conclusion(ending.conclusion),
            outcome=Conclusion(ending.outcome),
            seconds=time.monotonic() - began,
            exit_code=ending.exit_code,
            summary=_kept_summary(bench, number, ending.summary),
            name=bench.log.mask(title(entry, phase)) if unheard else "",
        )
    )
    return ending


def _kept_summary(bench: Bench, number: int, summary: str) -> str:
    """The summary, masked; it counts as log, and where that is full it is dropped as log is."""
    if not summary or not bench.log.has_room:
        return ""
    bench.log.spend(number, len(summary))
    return bench.log.mask(summary)


def title(entry: Entry, phase: Phase) -> str:
    """What the phase is called before anything is evaluated."""
    return _BEFORE[phase] + entry.step.display_name


async def _name(bench: Bench, step: Step) -> str:
    template = step.name or step.run
    if template is None or template.is_literal:
        return bench.log.mask(step.display_name)
    try:
        text = await bench.evaluate(template.text)
    except EvaluationError:
        return bench.log.mask(step.display_name)
    lines = text.strip().splitlines() or [""]
    return bench.log.mask(lines[0] if step.name is not None else f"Run {lines[0].strip()}")[:_LONGEST_NAME]
