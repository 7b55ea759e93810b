"""A node killed at every step of a machine's life: the next one reaps, and nothing is left: no process, socket, directory or draft."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import snapshot as snapshots
from firebrick.machine.drafts import sweep_drafts
from firebrick.machine.jail import record
from firebrick.machine.jail.group import PARENT, find_groups
from firebrick.machine.network import leftovers
from firebrick.machine.network.commands import NAMESPACES
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.seat import FIRST_ID, SEATS, Seats
from tests.conformance.conftest import Way
from tests.conformance.victim import JAILED, POINTS

ROOT = Path(__file__).resolve().parents[2]
# What only a machine with a process and layers comes by.
OF_QEMU = {
    name
    for name, (thing, attribute, _) in POINTS.items()
    if getattr(thing, "__name__", "").endswith(("qemu.start", "disk"))
}
OF_QEMU |= {"disk sealed"}
# Where a VMM runs whose owner dies: without a jail it is found in another way than in one.
FOUND_BY_NAME = {
    *("with QEMU", "with the channel", "with the identity", "quiesced", "paused", "disk sealed", "memory saved"),
    *("with the snapshot in place", "with poweroff said", "with all killed", "before QEMU is let go"),
}


class Nursery:
    """Where victims come from: see `tests.conformance.victim`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.conformance.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        )

    async def __call__(self, home: Path, driver: str, template: str, point: str) -> tuple[int, str]:
        """How it ended and what it said."""
        async with asyncio.timeout(250):
            return await asyncio.to_thread(self._ask, json.dumps([str(home), driver, template, point]))

    def _ask(self, line: str) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        status, said = json.loads(self.process.stdout.readline())
        return status, said


@pytest.fixture(scope="module")
def victim() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    with nursery.process as process:
        process.kill()


def processes_below(home: Path) -> list[str]:
    """Those whose arguments name something in the home."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes() if entry.name.isdigit() and int(entry.name) != os.getpid() else b""
        except OSError:
            continue
        if os.fsencode(home) in argv:
            found.append(argv.decode(errors="replace").replace("\0", " "))
    return found


def seats_of(home: Path) -> list[Path]:
    """Those that were taken for machines of this home."""
    files = SEATS.iterdir() if SEATS.is_dir() and os.geteuid() == 0 else ()
    return [file for file in files if file.read_bytes().startswith(os.fsencode(home))]


def of_the_host() -> dict[str, list[str]]:
    """Control groups, network namespaces, processes of seats and mounts."""
    groups = find_groups()
    parent = groups.mount / PARENT if groups else Path("/nowhere")
    return {
        "groups": sorted(entry.name for entry in parent.glob("fb*")),
        "namespaces": sorted(entry.name for entry in NAMESPACES.glob("fb*")),
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
    }


async def assert_nothing_is_left(home: Path) -> None:
    seats = seats_of(home)
    machine.reap(home / "machines")
    if os.geteuid() == 0 and (NAMESPACES.is_dir() or seats):
        await leftovers.sweep(Seats(), HostNetwork())
    for file in seats:
        assert record.processes_of(FIRST_ID + int(file.name)) == []
        with Seats().vacant(int(file.name)) as seat:
            assert seat is not None, f"seat {file.name} is still taken"
    with snapshots.drafted(home / "snapshots" / "next"):
        pass
    sweep_drafts(home / "cache" / "verified")
    async with asyncio.timeout(10):
        while processes_below(home):
            await asyncio.sleep(0.02)
    assert [entry.name for entry in (home / "machines").glob("*")] == []
    hidden = [str(path) for path in home.rglob(".*")]
    sockets = [str(path) for path in home.rglob("*") if path.is_socket() or path.is_fifo()]
    assert (hidden, sockets) == ([], [])
    for entry in (home / "snapshots").iterdir():  # what is there is whole
        machine.Snapshot.load(entry)


@pytest.mark.parametrize("point", [name for name in POINTS if name not in OF_QEMU])
async def test_the_fakes_life_ends_at(victim: Nursery, tmp_path: Path, point: str):
    home = tmp_path / "home"
    status, said = await victim(home, "fake", "", point)
    assert (status, said) == (-9, "")
    await assert_nothing_is_left(home)


async def test_the_fakes_life_ends_at_every_change_to_the_outside(victim: Nursery, tmp_path: Path):
    status, said = await victim(tmp_path / "all", "fake", "", "0")
    assert status == 0
    changes = int(said.split()[1])
    assert changes > 40
    for number in range(1, changes + 1, 3):
        home = tmp_path / str(number)
        status, said = await victim(home, "fake", "", str(number))
        assert (status, said) == (-9, ""), number
        await assert_nothing_is_left(home)


@pytest.mark.real
@pytest.mark.once
@pytest.mark.parametrize("point", [name for name in POINTS if name not in FOUND_BY_NAME])
async def test_a_real_life_ends_at(victim: Nursery, way: Way, tmp_path: Path, point: str):
    await a_life_ends(victim, way, tmp_path / "home", point)


@pytest.mark.real
@pytest.mark.once
@pytest.mark.rooms
@pytest.mark.parametrize("point", sorted(FOUND_BY_NAME))
async def test_a_real_life_ends_with_a_vmm_at(victim: Nursery, way: Way, tmp_path: Path, point: str):
    await a_life_ends(victim, way, tmp_path / "home", point)


@pytest.mark.networked
@pytest.mark.once
@pytest.mark.parametrize("point", JAILED)
async def test_a_jailed_life_ends_at(victim: Nursery, way: Way, tmp_path: Path, point: str):
    await a_life_ends(victim, way, tmp_path / "home", point)


async def a_life_ends(victim: Nursery, way: Way, home: Path, point: str) -> None:
    template = way.template()
    before = of_the_host()
    (home / "snapshots").mkdir(parents=True)
    with contextlib.suppress(FileNotFoundError):  # to read all of its memory again takes longer than a life
        shutil.copytree(way.home / "cache" / "verified", home / "cache" / "verified")
    status, said = await victim(home, way.driver, str(template.path), point)
    assert (status, said) == (-9, "")
    await assert_nothing_is_left(home)
    assert of_the_host() == before
