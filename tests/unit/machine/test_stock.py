"""Things made before they are wanted, where making one fails, or takes longer than making another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from firebrick.machine.errors import HostError
from firebrick.machine.stock import Stock


@pytest.mark.parametrize("failure", [HostError("no room"), OSError("no inode"), LookupError("a mistake")])
async def test_what_cannot_be_made_is_told_and_tried_again(failure: Exception) -> None:
    failing, gone = [failure] * 3, list[int]()

    async def make(stack: AsyncExitStack) -> int:
        if failing:
            raise failing.pop()
        stack.callback(gone.append, 1)
        return 7

    async with asyncio.timeout(10), Stock(make, size=1, name="things") as stock:
        with pytest.raises(type(failure)):
            await stock.full()
        with pytest.raises(type(failure)):
            async with stock.take():
                pass
        failing.clear()
        async with stock.take() as thing:
            assert thing == 7
        await stock.full()
        assert stock.ready == 1
        before = len(gone)
    assert len(gone) == before + 1


async def test_a_stock_that_was_filled_meanwhile_is_full() -> None:
    """Who finds none has one made; that the stock is full before that one is there is not forgotten."""
    gates = [asyncio.Event(), asyncio.Event()]
    begun = iter(gates)

    async def make(_: AsyncExitStack) -> int:
        await next(begun).wait()
        return 7

    async with asyncio.timeout(10), Stock(make, size=1, name="things") as stock, asyncio.TaskGroup() as group:
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the stock has begun to make its own

        async def take() -> None:
            async with stock.take():
                await stock.full()

        taking = group.create_task(take())
        gates[0].set()
        await stock.full()
        gates[1].set()
        await taking
        assert stock.ready == 1
