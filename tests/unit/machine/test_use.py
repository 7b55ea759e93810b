"""A snapshot that is in use is not removed, and one that is being removed is not used."""

import asyncio
import os
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Fake, MachineSpec, Snapshot, SnapshotError, use


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    return MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")


async def taken(spec: MachineSpec, fake: Fake, home: Path) -> Snapshot:
    async with machine.launch(spec, fake, home=home) as m:
        return await m.snapshot(home / "snapshot")


async def test_it_stays_until_the_machine_has_started(spec, tmp_path):
    fake = Fake()
    snapshot = await taken(spec, fake, tmp_path)
    fake.faults.silent = True
    starting = asyncio.create_task(_restored(snapshot, fake, tmp_path))
    while len(fake.machines) < 2:
        await asyncio.sleep(0)
    with pytest.raises(SnapshotError, match=f"cannot remove the snapshot {snapshot.path}: a machine is being") as no:
        snapshot.remove()
    assert "when that is done" in no.value.hint
    assert Snapshot.load(snapshot.path).id == snapshot.id
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    snapshot.remove()
    assert not snapshot.path.exists()


async def _restored(snapshot: Snapshot, fake: Fake, home: Path) -> None:
    async with machine.restore(snapshot, fake, home=home):
        pass


async def test_a_machine_that_has_started_needs_it_no_more(spec, tmp_path):
    fake = Fake()
    snapshot = await taken(spec, fake, tmp_path)
    async with machine.restore(snapshot, fake, home=tmp_path) as m:
        snapshot.remove()
        assert (await m.run(["true"])).status.ok
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "machines"]


async def test_what_is_being_removed_is_not_restored(spec, tmp_path):
    fake = Fake()
    snapshot = await taken(spec, fake, tmp_path)
    with use.alone(snapshot.path), pytest.raises(SnapshotError, match="it is being removed"):
        await _restored(snapshot, fake, tmp_path)
    snapshot.remove()
    with pytest.raises(SnapshotError, match="No such file"):
        await _restored(snapshot, fake, tmp_path)
    assert len(fake.machines) == 1


async def test_a_base_stays_while_a_difference_to_it_is_taken(spec, tmp_path):
    fake = Fake()
    snapshot = await taken(spec, fake, tmp_path)
    async with machine.restore(snapshot, fake, home=tmp_path) as m:
        fake.faults.save_s = 60
        saving = asyncio.create_task(m.snapshot(tmp_path / "difference", snapshot))
        while m.state is not machine.State.SAVING:
            await asyncio.sleep(0)
        with pytest.raises(SnapshotError, match="a difference to it taken"):
            snapshot.remove()
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
    snapshot.remove()


def test_any_number_may_use_it(tmp_path):
    with use.shared([tmp_path]), use.shared([tmp_path]), pytest.raises(SnapshotError), use.alone(tmp_path):
        raise AssertionError
    with use.alone(tmp_path), pytest.raises(SnapshotError), use.alone(tmp_path):
        raise AssertionError


def test_one_that_was_replaced_between_being_opened_and_locked(tmp_path, monkeypatch):
    path = tmp_path / "s"
    path.mkdir()
    opened = os.open

    def open_late(*arguments, **options):
        fd = opened(*arguments, **options)
        if path.exists() and arguments[0] == path:
            path.rename(tmp_path / "gone")
        return fd

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(SnapshotError, match="it is being removed"), use.shared([path]):
        raise AssertionError
