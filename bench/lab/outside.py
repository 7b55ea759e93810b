"""The group `lab` of the benchmark: what `python -m bench.lab` measures inside the lab, and one row that needs none."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Final

from bench.bed import Bed
from bench.lab.calls import overhead
from bench.row import Row
from firebrick import process
from firebrick.guest.errors import GuestError
from firebrick.lock import hold_lock
from firebrick.machine import MachineError
from lab.host import PROJECT, ROOT, Lab, Place, restored
from lab.project import staged

_COMMAND: Final = ("python3", "-m", "bench.lab")
_DEADLINE_S: Final = 900.0
_START_S: Final = 30.0
_TAIL: Final = 4000
_ATTEMPTS: Final = 3


class LabError(Exception):
    """The lab did not bring its rows; the message has its last words."""


async def lab(bed: Bed) -> list[Row]:
    """Raises LabError."""
    return [await _native_overhead(bed), *await _rows()]


async def _native_overhead(bed: Bed) -> Row:
    """Against the double of Firecracker's API, on the processor of this host. Both sides wait for the same double, so it does not matter how fast it is."""
    socket = bed.home.root / "bench-api.sock"
    options = ["--as", "1.12.1", "--api-sock", str(socket), "--id", "bench"]
    argv = [sys.executable, "-m", "tests.firecracker.double", *options]
    here = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    async with process.spawn(argv, env=here, cwd=ROOT, grace=0) as double:
        await _listening(socket, double)
        return await overhead("driver overhead of an API call", socket)


async def _listening(socket: Path, double: process.Process) -> None:
    async with asyncio.timeout(_START_S):
        while not socket.exists():
            if double.ended:
                raise LabError("the double of Firecracker's API ended at once")
            await asyncio.sleep(0.01)


async def _rows() -> list[Row]:
    """A host that is emulated down to its virtualisation crashes now and then: one that is lost is replaced. What fails in it is not tried again."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            async with restored(Place.of_tree(), _say) as host:
                return await _measured(host)
        except (GuestError, MachineError) as error:
            _say(f"the lab was lost: {error}")
            if not left:
                raise LabError(f"{_ATTEMPTS} labs were lost, the last one: {error}") from error
    raise AssertionError


async def _measured(host: Lab) -> list[Row]:
    place = Place.of_tree()
    async with hold_lock(place.cache / "project.lock"):
        await host.machine.upload(await staged(ROOT, place.cache), PROJECT, uid=0, gid=0)
    done = await host.machine.run(_COMMAND, cwd=PROJECT, env=host.environment, timeout=_DEADLINE_S)
    if not done.status.ok:
        raise LabError(f"measuring in the lab {done.status}:\n{done.stderr[-_TAIL:].decode(errors='replace')}")
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]


def _say(text: str) -> None:
    sys.stderr.write(f"lab: {text}\n")
