"""What the node does itself for a step: given up when the run is cancelled, or when the step's time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from firebrick.node.errors import StepError
from firebrick.node.step.bench import Bench
from firebrick.node.step.deadline import Deadline
from firebrick.task import race

T = TypeVar("T")


class StepCancelledError(StepError):
    """The step was ended, because the run is being cancelled."""


async def in_time(bench: Bench, deadline: Deadline | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises StepCancelledError or StepError where it was given up; it has ended then."""
    return await race(work, _ended(bench, deadline), name=f"step-work-{bench.log.job}")


async def _ended(bench: Bench, deadline: Deadline | None) -> NoReturn:
    try:
        async with asyncio.timeout(deadline.left_s if deadline is not None else None):
            await bench.step_ended()
    except TimeoutError:
        assert deadline is not None
        raise StepError(deadline.passed) from None
    raise StepCancelledError("The operation was canceled.")
