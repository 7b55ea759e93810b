"""Asking work to end."""

from __future__ import annotations

import asyncio

import pytest

from firebrick.node.event import CancelCause
from firebrick.server.stop import Stop, StoppedError


async def test_work_nobody_stops_is_done() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await Stop().bound(work()) == 7


async def test_an_error_comes_through() -> None:
    async def work() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await Stop().bound(work())


async def test_stopped_work_has_cleaned_up_when_it_is_said() -> None:
    stop, clean = Stop(), False

    async def work() -> None:
        nonlocal clean
        try:
            stop.ask(CancelCause.USER)
            await asyncio.Future()
        finally:
            await asyncio.sleep(0.01)
            clean = True

    with pytest.raises(StoppedError) as caught:
        await asyncio.wait_for(stop.bound(work()), 5)
    assert caught.value.cause is CancelCause.USER
    assert clean


async def test_asked_before_it_began() -> None:
    stop = Stop()
    stop.ask(CancelCause.SHUTDOWN)
    with pytest.raises(StoppedError):
        await asyncio.wait_for(stop.bound(asyncio.sleep(60)), 5)


async def test_only_the_cause_that_was_meant_stops() -> None:
    stop = Stop()
    stop.ask(CancelCause.USER)
    assert await stop.bound(asyncio.sleep(0, "done"), CancelCause.SHUTDOWN) == "done"
    stop.ask(CancelCause.SHUTDOWN)
    with pytest.raises(StoppedError):
        await stop.bound(asyncio.sleep(60), CancelCause.SHUTDOWN)
    assert stop.cause is CancelCause.USER


async def test_cancelling_the_caller_cancels_the_work() -> None:
    started, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        started.set()
        try:
            await asyncio.Future()
        finally:
            ended = True

    task = asyncio.create_task(Stop().bound(work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
