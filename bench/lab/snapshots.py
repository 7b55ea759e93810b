"""Rows about snapshots. The floor is what a script does for one: Firecracker's requests to pause, to write it and to go on, and a copy of the disk before the last. That
of the whole call has the digests of what was written too, as `sha256sum` makes them."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench import bare_firecracker as bare
from bench.lab.place import Place
from bench.lab.restores import restored, restored_bare
from bench.row import Row, compared
from firebrick.machine import Machine

_ROUNDS: Final = 5


async def snapshots(place: Place) -> list[Row]:
    floor, floor_digested, whole = [], [], []
    with restored_bare(place) as theirs:
        async with (
            restored(place, place.plain, place.open) as ours,
            restored(place, place.linked, place.jailed) as jailed,
        ):
            standing, jailed_standing = _Stopwatch(ours), _Stopwatch(jailed)
            for _ in range(_ROUNDS + 1):
                written, digested = _bare(place, theirs)
                floor.append(written)
                floor_digested.append(digested)
                whole.append(await _own(place, ours))
                await _own(place, jailed)
    return [
        compared("snapshot: the machine stands still", "s", floor[1:], standing.took[1:], 1.1),
        compared("snapshot: the whole call, with digests", "s", floor_digested[1:], whole[1:], 1.1),
        compared("snapshot in jail: the machine stands still", "s", floor[1:], jailed_standing.took[1:], 1.5),
    ]


def _bare(place: Place, machine: bare.Bare) -> tuple[float, float]:
    """How long it takes until the snapshot is written and the machine goes on, and until there are digests of it."""
    target = place.fresh("saved")
    began = time.monotonic()
    machine.pause()
    machine.snapshot(target)
    machine.resume()
    written = time.monotonic() - began
    for name in ("state", "memory"):
        with (target / name).open("rb") as file:
            hashlib.file_digest(file, "sha256")
    digested = time.monotonic() - began
    shutil.rmtree(target)
    return written, digested


async def _own(place: Place, machine: Machine) -> float:
    target = place.fresh("saved")
    began = time.monotonic()
    await machine.snapshot(target / "snapshot")
    took = time.monotonic() - began
    shutil.rmtree(target)
    return took


class _Stopwatch:
    """How long the processors of a machine stood still each time: from before the request that stops them until after the one that lets them go on."""

    def __init__(self, machine: Machine) -> None:
        self.took: list[float] = []
        self._began = 0.0
        vm = machine.vm
        pause, resume = vm.pause, vm.resume
        setattr(vm, "pause", self._timed(pause, before=self._begin))  # noqa: B010 - the type has a method there
        setattr(vm, "resume", self._timed(resume, after=self._end))  # noqa: B010

    def _timed(
        self,
        act: Callable[[], Awaitable[None]],
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> Callable[[], Awaitable[None]]:
        async def timed() -> None:
            before()
            await act()
            after()

        return timed

    def _begin(self) -> None:
        self._began = time.monotonic()

    def _end(self) -> None:
        self.took.append(time.monotonic() - self._began)
