"""What the node does itself for a step: given up when the run is cancelled, or when the step's time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from firebrick.node.errors import StepError
from firebrick.node.step.bench import Bench
from firebrick.node.step.deadline import Deadline
from firebrick.task import end_tasks

T = TypeVar("T")


class StepCancelledError(StepError):
    """The step was ended, because the run is being cancelled."""


async def in_time(bench: Bench, deadline: Deadline | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises StepCancelledError or StepError where it was given up; it has ended then."""
    task = asyncio.create_task(work, name=f"step-work-{bench.log.job}")
    end = asyncio.create_task(bench.step_ended(), name=f"step-work-{bench.log.job}-end")
    try:
        left_s = deadline.left_s if deadline is not None else None
        await asyncio.wait((task, end), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if end.done():
            raise StepCancelledError("The operation was canceled.")
        assert deadline is not None
        raise StepError(deadline.passed)
    finally:
        await end_tasks(task, end)
