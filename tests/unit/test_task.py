"""Tasks and their ends."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, NoReturn

import pytest

from firebrick.task import alongside, race


async def _raise(error: Exception) -> NoReturn:
    raise error


class Stubborn:
    """Does not end until it is cancelled, and comes to something all the same."""

    def __init__(self, late: Exception | str = "late") -> None:
        self.began, self.cleaned = asyncio.Event(), asyncio.Event()
        self._late = late

    async def run(self) -> str:
        self.began.set()
        try:
            await asyncio.Future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cleaned.set()
            if isinstance(self._late, Exception):
                raise self._late from None
        return str(self._late)


async def test_a_race_is_what_came_first() -> None:
    end = Stubborn()
    assert await race(asyncio.sleep(0, 7), end.run(), name="test") == 7
    assert end.cleaned.is_set()


async def test_the_end_may_come_first_and_what_is_late_counts_for_nothing() -> None:
    work = Stubborn()
    assert await race(work.run(), asyncio.sleep(0), name="test") is None
    assert work.cleaned.is_set()


async def test_a_race_raises_what_came_first() -> None:
    with pytest.raises(ValueError, match="end"):
        await race(Stubborn().run(), _raise(ValueError("end")), name="test")
    with pytest.raises(ValueError, match="work"):
        await race(_raise(ValueError("work")), Stubborn().run(), name="test")


async def test_the_work_counts_where_both_come_at_once() -> None:
    assert await race(asyncio.sleep(0, "work"), asyncio.sleep(0, "end"), name="test") == "work"
    assert await race(asyncio.sleep(0, "work"), _raise(ValueError("end")), name="test") == "work"


async def test_errors_that_count_for_nothing_are_not_reported() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    await race(Stubborn(ValueError("late")).run(), asyncio.sleep(0), name="test")
    gc.collect()
    assert reported == []


async def test_they_are_not_reported_where_who_cleans_up_is_cancelled_too() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    work = Stubborn(ValueError("late"))
    both = asyncio.create_task(race(work.run(), asyncio.Event().wait(), name="test"))
    await work.began.wait()
    both.cancel()
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert work.cleaned.is_set()
    del both
    await asyncio.sleep(0.01)  # the loop forgets it
    gc.collect()
    assert reported == []


async def test_who_is_cancelled_in_a_race_leaves_nobody_running() -> None:
    work, end = Stubborn(), Stubborn()
    both = asyncio.create_task(race(work.run(), end.run(), name="test"))
    await end.began.wait()
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert work.cleaned.is_set()
    assert end.cleaned.is_set()


async def test_what_goes_on_alongside_has_ended_with_the_context() -> None:
    work = Stubborn(ValueError("late"))
    with pytest.raises(KeyError):
        async with alongside(work.run(), name="test") as task:
            await work.began.wait()
            raise KeyError
    assert work.cleaned.is_set()
    assert isinstance(task.exception(), ValueError)
