"""Turns on a node."""

from __future__ import annotations

import asyncio

import pytest

from firebrick.node.pool.turns import Turns


async def test_several_are_taken_together_and_in_order() -> None:
    turns = Turns(3)
    order: list[str] = []
    leave = {name: asyncio.Event() for name in "abcd"}

    async def work(name: str, count: int) -> None:
        async with turns.take(count):
            order.append(name)
            await leave[name].wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for name, count in (("a", 2), ("b", 2), ("c", 1), ("d", 9)):
            group.create_task(work(name, count))
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["a"], "c does not pass b, who was there first"
        assert turns.must_wait()
        leave["a"].set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert order == ["a", "b", "c"]
        for name in "bcd":
            leave[name].set()
    assert order == ["a", "b", "c", "d"]
    assert not turns.must_wait()


async def test_who_gives_up_waiting_keeps_none() -> None:
    turns = Turns(2)
    async with turns.take(1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), turns.take(2):
                pytest.fail("there is one only")
        async with asyncio.timeout(10), turns.take(1):
            assert turns.must_wait()
    assert not turns.must_wait()
