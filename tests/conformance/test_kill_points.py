"""A node killed at every step of a machine's life: the next one reaps, and nothing is left: no process, socket, directory or draft."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import owner
from firebrick.machine import snapshot as snapshots
from tests.conformance.conftest import Way
from tests.conformance.victim import POINTS

ROOT = Path(__file__).resolve().parents[2]
# What only a machine with a process and layers comes by.
OF_QEMU = {
    name
    for name, (thing, attribute, _) in POINTS.items()
    if getattr(thing, "__name__", "").endswith(("qemu.start", "disk"))
}
OF_QEMU |= {"disk sealed"}


async def victim(home: Path, driver: str, template: str, point: str) -> tuple[int, str]:
    """How it ended and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-B", "-m", "tests.conformance.victim", str(home), driver, template, point),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode().strip()


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


async def assert_nothing_is_left(home: Path) -> None:
    machine.reap(home / "machines")
    with snapshots.drafted(home / "snapshots" / "next"):
        pass
    owner.sweep_drafts(home / "cache" / "verified")
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
async def test_the_fakes_life_ends_at(tmp_path: Path, point: str):
    home = tmp_path / "home"
    status, said = await victim(home, "fake", "", point)
    assert (status, said) == (-9, "")
    await assert_nothing_is_left(home)


async def test_the_fakes_life_ends_at_every_change_to_the_outside(tmp_path: Path):
    status, said = await victim(tmp_path / "all", "fake", "", "0")
    assert status == 0
    changes = int(said.split()[1])
    assert changes > 40
    gate = asyncio.Semaphore(2)

    async def one(number: int) -> None:
        home = tmp_path / str(number)
        async with gate:
            status, said = await victim(home, "fake", "", str(number))
        assert (status, said) == (-9, ""), number
        await assert_nothing_is_left(home)

    await asyncio.gather(*(one(number) for number in range(1, changes + 1, 3)))


@pytest.mark.real
@pytest.mark.once
@pytest.mark.parametrize("point", POINTS)
async def test_a_real_life_ends_at(way: Way, tmp_path: Path, point: str):
    home = tmp_path / "home"
    (home / "snapshots").mkdir(parents=True)
    status, said = await victim(home, way.driver, str(way.template().path), point)
    assert (status, said) == (-9, "")
    await assert_nothing_is_left(home)
