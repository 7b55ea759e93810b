"""Ends of tasks that are waited for, whatever happens meanwhile: what clean-up is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Finish `work` whatever happens: a cancellation that arrives meanwhile is delivered after it. For clean-up."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001, S110 - the task holds it, and gives it out below
            pass
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            raise cancelled from task.exception()
        raise cancelled
    return task.result()


async def together(*works: Coroutine[Any, Any, object]) -> None:
    """All at once. Each is waited for; then what the first of them that failed has raised is raised."""
    for done in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until each has ended, however it does. What they raise is not raised here: who wants it asks them."""
    for task in tasks:
        task.cancel()
    if tasks:
        await shielded(_ended(tasks))


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    await asyncio.wait(tasks)
