"""Rows about restored machines: how long until one says something, and what fifty cost."""

from __future__ import annotations

import asyncio
import functools
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Final

from bench import bare_firecracker as bare
from bench.lab.agent import first_output
from bench.lab.place import DEADLINE_S, FIRST_COMMAND, Place, say
from bench.machines import own_mib
from bench.row import Row, compared
from firebrick import machine
from firebrick.machine import Firecracker, Machine, Snapshot, Standby

_ROUNDS: Final = 7
_STANDING: Final = 3  # more than half of them still stand when one was taken, so that no other is made meanwhile
_MANY: Final = 50
_AT_ONCE: Final = 2  # so that one side of ours works while the other waits


@asynccontextmanager
async def restored(place: Place, taken: Snapshot, driver: Firecracker) -> AsyncIterator[Machine]:
    """A machine of the product that has said something."""
    async with (
        machine.restore(taken, driver, home=place.home, deadline=DEADLINE_S) as made,
        _heard(made),
    ):
        yield made


@asynccontextmanager
async def _taken(ahead: Standby) -> AsyncIterator[Machine]:
    """The same of one that stood by."""
    async with ahead.restore(deadline=DEADLINE_S) as made, _heard(made):
        yield made


@asynccontextmanager
async def _heard(made: Machine) -> AsyncIterator[None]:
    async with made.exec(FIRST_COMMAND) as process:
        assert await anext(aiter(process.stdout))
        yield


@contextmanager
def restored_bare(place: Place) -> Iterator[bare.Bare]:
    """The same of the floor."""
    directory = place.fresh("bare")
    try:
        with bare.restored(place.setup, place.plain.path, directory) as made:
            assert first_output(made, FIRST_COMMAND)
            yield made
    finally:
        shutil.rmtree(directory)


async def first_outputs(place: Place) -> list[Row]:
    async with restored(place, place.plain, place.paged):
        pass  # it leaves the list of its pages
    async with (
        machine.standby(place.plain, place.open, count=_STANDING, home=place.home) as ahead,
        machine.standby(place.linked, place.jailed, count=_STANDING, home=place.home) as jailed_ahead,
        machine.standby(place.plain, place.paged, count=_STANDING, home=place.home) as paged_ahead,
    ):
        sides: dict[str, Callable[[], Awaitable[float]]] = {
            "bare": functools.partial(_bare_time, place),
            "ahead": lambda: _time(_taken(ahead)),
            "jailed ahead": lambda: _time(_taken(jailed_ahead)),
            "open": lambda: _time(restored(place, place.plain, place.open)),
            "paged ahead": lambda: _time(_taken(paged_ahead)),
            "jailed": lambda: _time(restored(place, place.linked, place.jailed)),
        }
        took: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(_ROUNDS + 1):
            for name, side in sides.items():
                for each in (ahead, jailed_ahead, paged_ahead):
                    await each.full()
                await place.settled(held=_STANDING)
                took[name].append(await side())
    times = {name: each[1:] for name, each in took.items()}
    return [
        compared("restore, standing by", "s", times["bare"], times["ahead"], 1.2),
        compared("restore, standing by in jail and network", "s", times["bare"], times["jailed ahead"], 1.5),
        compared("restore from the beginning", "s", times["bare"], times["open"], 1.2),
        compared("restore from the beginning, jail and network", "s", times["bare"], times["jailed"], None),
        compared("restore, standing by at the page server", "s", times["ahead"], times["paged ahead"], None),
    ]


async def _time(one: AbstractAsyncContextManager[Machine]) -> float:
    began = time.monotonic()
    async with one:
        return time.monotonic() - began


async def _bare_time(place: Place) -> float:
    began = time.monotonic()
    with restored_bare(place):
        return time.monotonic() - began


async def many(place: Place) -> list[Row]:
    """All of one side are alive until its last one has said something."""
    bare_wall, bare_memory = await asyncio.to_thread(_many_bare, place)
    say(f"{_MANY} bare machines took {bare_wall:.1f} s")
    wall, memory = await _many(place)
    say(f"{_MANY} machines took {wall:.1f} s")
    return [
        Row(name=f"{_MANY} restores, all of them", unit="s", floor=bare_wall, value=wall, limit=1.5),
        compared("memory of one of them", "MiB", bare_memory, memory, 1.2),
    ]


def _many_bare(place: Place) -> tuple[float, list[float]]:
    with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as threads:
        began = time.monotonic()
        machines = list(threads.map(lambda _: stack.enter_context(restored_bare(place)), range(_MANY)))
        return time.monotonic() - began, [own_mib(one.pid) for one in machines]


async def _many(place: Place) -> tuple[float, list[float]]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async with AsyncExitStack() as stack:

        async def start() -> Machine:
            async with turns:
                return await stack.enter_async_context(restored(place, place.plain, place.open))

        began = time.monotonic()
        machines = await asyncio.gather(*(start() for _ in range(_MANY)))
        took = time.monotonic() - began
        return took, [own_mib(one.pid) for one in machines if one.pid is not None]
