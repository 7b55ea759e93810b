"""Machines that stand by: taken, they are as restored ones; untaken, they cost no trace."""

import asyncio
import contextlib
import os
import signal

import pytest

from firebrick import machine
from firebrick.machine import SnapshotError, SpecError, StateError
from tests.conformance.conftest import DEADLINE_S, Way
from tests.conformance.ways import PACE
from tests.leak import Belongings


def below(way: Way) -> set[str]:
    return {entry.name for entry in (way.home / "machines").iterdir()}


@pytest.mark.once
@pytest.mark.rooms
async def test_one_that_is_taken_is_a_machine_of_its_own(way: Way):
    before = Belongings.now()
    async with machine.standby(way.template(), way.made, home=way.home, count=2) as ahead:
        await ahead.full()
        assert (ahead.ready, len(below(way))) == (2, 2)
        async with ahead.restore(deadline=DEADLINE_S) as one, ahead.restore(deadline=DEADLINE_S, hostname="two") as two:
            said = [(await m.run(["hostname"], check=True)).stdout.decode().strip() for m in (one, two)]
            assert said == [one.identity.hostname, "two"]
            assert one.identity.machine_id != two.identity.machine_id
            assert one.base is None or one.base.digest == way.template().digest
            await ahead.full()
            assert ahead.ready == 2
        assert {one.id, two.id} & below(way) == set()
    assert below(way) == set()
    assert Belongings.settled_since(before) == ""


@pytest.mark.once
async def test_what_cannot_be_asked_of_it(way: Way):
    for count in (0, -1):
        with pytest.raises(SpecError, match="standing by"):
            async with machine.standby(way.template(), way.made, home=way.home, count=count):
                pass
    async with machine.standby(way.template(), way.made, home=way.home, count=1) as ahead:
        for name in ("no host", "x" * 65):
            with pytest.raises(SpecError, match="cannot call a machine"):
                async with ahead.restore(deadline=DEADLINE_S, hostname=name):
                    pass
    with pytest.raises(StateError, match="are gone"):
        async with ahead.restore(deadline=DEADLINE_S):
            pass
    assert below(way) == set()


@pytest.mark.once
async def test_who_finds_none_has_one_made(way: Way):
    async with machine.standby(way.template(), way.made, home=way.home, count=1) as ahead:

        async def one() -> str:
            async with ahead.restore(deadline=DEADLINE_S) as m:
                return (await m.run(["hostname"], check=True)).stdout.decode()

        assert len(set(await asyncio.gather(*(one() for _ in range(3))))) == 3
    assert below(way) == set()


@pytest.mark.once
async def test_its_snapshot_stays(way: Way, tmp_path):
    async with machine.restore(way.template(), way.made, home=way.home, deadline=DEADLINE_S) as m:
        taken = await m.snapshot(tmp_path / "snapshot")
    async with machine.standby(taken, way.made, home=way.home, count=1) as ahead:
        await ahead.full()
        with pytest.raises(SnapshotError, match="cannot remove"):
            taken.remove()
    taken.remove()
    with pytest.raises(SnapshotError):
        async with machine.standby(taken, way.made, home=way.home, count=1):
            pass


@pytest.mark.once
async def test_a_difference_stands_by_too(way: Way, tmp_path):
    async with machine.restore(way.template(), way.made, home=way.home, deadline=DEADLINE_S) as m:
        await m.files.write("/root/word", b"kept")
        if m.base is None:
            base = await m.snapshot(tmp_path / "base")
            taken = base if m.base is None else await m.snapshot(tmp_path / "difference", base)
        else:
            taken = await m.snapshot(tmp_path / "difference", m.base)
    async with machine.standby(taken, way.made, home=way.home, count=1) as ahead:
        await ahead.full()
        async with ahead.restore(deadline=DEADLINE_S) as m:
            assert await m.files.read("/root/word") == b"kept"


@pytest.mark.once
@pytest.mark.real
@pytest.mark.rooms
async def test_one_that_was_killed_while_it_stood_is_passed_over(way: Way):
    async with machine.standby(way.template(), way.made, home=way.home, count=1) as ahead:
        await ahead.full()
        [lost] = below(way)
        for pid in _processes_of(lost):
            with contextlib.suppress(ProcessLookupError):  # some end with others
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.2 * PACE)
        async with ahead.restore(deadline=DEADLINE_S) as m:
            assert m.id != lost
            assert (await m.run(["true"])).status.ok
            assert lost not in below(way)


def _processes_of(name: str) -> list[int]:
    """Those that have the name of a machine in their arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if name.encode() in file.read():
                        found.append(int(entry))
            except OSError:
                pass
    assert found
    return found


@pytest.mark.once
async def test_cancelled_while_they_are_made_they_leave_nothing(way: Way):
    way.template()
    before = Belongings.now()

    async def stand() -> None:
        async with machine.standby(way.template(), way.made, home=way.home, count=2) as ahead:
            await ahead.full()
            async with ahead.restore(deadline=DEADLINE_S):
                await asyncio.sleep(DEADLINE_S)

    for moment in (0.0, 0.02, 0.1, 0.3):
        task = asyncio.create_task(stand())
        await asyncio.wait([task], timeout=moment * PACE)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task
        assert below(way) == set()
    assert Belongings.settled_since(before) == ""
