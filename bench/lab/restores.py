"""Rows about restored machines: how long until one says something, and what fifty cost."""

from __future__ import annotations

import asyncio
import functools
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Final

from bench import bare_firecracker as bare
from bench.lab.agent import first_output
from bench.lab.place import DEADLINE_S, FIRST_COMMAND, Place, say
from bench.machines import own_mib
from bench.row import Row, compared
from firebrick import machine
from firebrick.machine import Firecracker, Machine, Snapshot

_ROUNDS: Final = 5
_MANY: Final = 50
_AT_ONCE: Final = 2  # so that one side of ours works while the other waits


@asynccontextmanager
async def restored(place: Place, taken: Snapshot, driver: Firecracker) -> AsyncIterator[Machine]:
    """A machine of the product that has said something."""
    async with machine.restore(taken, driver, home=place.home, deadline=DEADLINE_S) as made:
        async with made.exec(FIRST_COMMAND) as process:
            assert await anext(aiter(process.stdout))
        yield made


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
    sides: dict[str, Callable[[], Awaitable[float]]] = {
        "bare": functools.partial(_bare_time, place),
        "open": functools.partial(_time, place, place.plain, place.open),
        "paged": functools.partial(_time, place, place.plain, place.paged),
        "jailed": functools.partial(_time, place, place.linked, place.jailed),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_ROUNDS + 1):
        for name, side in sides.items():
            await place.settled()
            took[name].append(await side())
    bare_, open_, paged, jailed = (took[name][1:] for name in sides)
    return [
        compared("restore to first output", "s", bare_, open_, 1.2),
        compared("restore in jail and network", "s", bare_, jailed, 1.5),
        compared("restore through the page server", "s", open_, paged, 1.5),
    ]


async def _time(place: Place, taken: Snapshot, driver: Firecracker) -> float:
    began = time.monotonic()
    async with restored(place, taken, driver):
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
