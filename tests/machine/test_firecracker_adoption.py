"""Machines under Firecracker's double that live on without the process that started them. Real ones are in the conformance corpus."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import ExitCause, Firecracker, Machine, MachineGoneError, Network, SpecError, owner
from firebrick.machine.driver import Baseline
from firebrick.machine.firecracker import config, record
from tests.machine.test_firecracker import Nets, _Pages, driver_of, spec_of, vm_of


async def released(driver: Firecracker, tmp_path: Path, act=None) -> Machine:
    """One that lives on; `act` is what its owner did with its VMM last."""
    async with machine.launch(spec_of(tmp_path), driver, home=tmp_path, detached=True) as made:
        await made.files.write("/tmp/x", b"1")
        if act is not None:
            await act(made)
        await made.release()
    return made


async def paused(made: Machine) -> None:
    await made.vm.pause()


async def saved(made: Machine) -> None:
    """Just before what was written is taken."""
    vm = vm_of(made)
    await vm._send(config.vm_state(paused=True))
    vm._saves += 1
    vm._note()
    directory = vm._vmm.room.root / "save1"
    directory.mkdir()
    await vm._send(config.create_snapshot(config.SnapshotType.FULL, "save1"))


async def paused_for_a_save(made: Machine) -> None:
    await vm_of(made)._send(config.vm_state(paused=True))


@pytest.mark.parametrize("version", ["1.12.1", "1.16.1"])
@pytest.mark.parametrize("act", [None, paused, saved, paused_for_a_save])
async def test_it_is_found_and_goes_on(tmp_path: Path, version: str, act):
    driver = driver_of(tmp_path, version, track_dirty_pages=True)
    before = await released(driver, tmp_path, act)
    assert machine.adoptable(tmp_path / "machines") == [before.directory]
    async with machine.adopt(before.directory, driver_of(tmp_path, version), home=tmp_path, deadline=20) as m:
        assert await m.files.read("/tmp/x") == b"1"
        assert "the double started" in m.console()
        assert not list(before.directory.glob("save*"))
        known = act in (None, paused) or (act is paused_for_a_save and version == "1.12.1")
        assert vm_of(m).baseline is (Baseline.LAST if known else Baseline.NONE)
        await m.snapshot(tmp_path / "taken")
        assert vm_of(m).baseline is Baseline.LAST
        await m.release()
    async with machine.adopt(before.directory, driver, home=tmp_path, deadline=20) as m:
        assert (await m.stop()).cause is ExitCause.POWEROFF
    assert not before.directory.exists()


async def test_its_end_is_told_as_far_as_it_is_known(tmp_path: Path):
    driver = driver_of(tmp_path)
    before = await released(driver, tmp_path)
    async with machine.adopt(before.directory, driver, home=tmp_path) as m:
        os.kill(m.pid, signal.SIGKILL)
        end = await asyncio.wait_for(m.wait(), 10)
    assert (end.cause, end.message) == (ExitCause.CRASHED, "Firecracker ended in a way that is not known")
    before = await released(driver, tmp_path)
    [pid] = owner.processes_of(before.id)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(MachineGoneError, match="it has ended"):
        async with machine.adopt(before.directory, driver, home=tmp_path):
            pass
    assert not before.directory.exists()


async def test_what_ends_with_its_process_keeps_no_machine(tmp_path: Path):
    with pytest.raises(SpecError, match="with a network namespace"):
        spec = spec_of(tmp_path, network=Network.NAMESPACE)
        async with machine.launch(spec, driver_of(tmp_path, network=Nets()), home=tmp_path, detached=True):
            pass
    driver = driver_of(tmp_path)
    async with machine.launch(spec_of(tmp_path), driver, home=tmp_path) as made:
        taken = await made.snapshot(tmp_path / "taken")
        assert not (made.directory / record.FILE).exists()
    with pytest.raises(SpecError, match="with a page server"):
        async with machine.restore(taken, driver_of(tmp_path, pager=_Pages()), home=tmp_path, detached=True):
            pass
    assert list((tmp_path / "machines").iterdir()) == []
