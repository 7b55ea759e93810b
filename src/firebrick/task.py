"""Tasks whose ends are waited for, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def race(work: Coroutine[Any, Any, T], end: Coroutine[Any, Any, U], *, name: str) -> T | U:
    """What `work` returns or raises, or what `end` does where that comes first; `work` counts where both come at once.

    The other one is cancelled, and has cleaned up when this returns; what it returns or raises by then counts for nothing."""
    tasks = (asyncio.create_task(work, name=name), asyncio.create_task(end, name=f"{name}-end"))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first, second = tasks
        return first.result() if first.done() else second.result()
    finally:
        try:
            await end_tasks(*tasks)
        finally:  # also where somebody cancels this meanwhile
            _ask(tasks)


def _ask(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """For what they have raised, which asyncio reports where nobody does."""
    for task in tasks:
        if not task.cancelled():
            task.exception()


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, T], *, name: str) -> AsyncIterator[asyncio.Task[T]]:
    """`work` goes on while the context lasts, and has ended when it is left. What it raises is not raised here: who wants it asks the task."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        await end_tasks(task)


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


async def together(*works: Awaitable[object]) -> None:
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
