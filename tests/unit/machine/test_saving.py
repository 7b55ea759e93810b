"""A save that fails: what went wrong first is told, and nobody waits for a machine that did not go on."""

import pytest

from firebrick import machine
from firebrick.guest.errors import ChannelError
from firebrick.machine import Fake, MachineError, MachineSpec, SnapshotError


@pytest.fixture
def spec(tmp_path) -> MachineSpec:
    return MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")


def is_stuck(m, monkeypatch) -> None:
    async def resume():
        raise MachineError("it is stuck")

    monkeypatch.setattr(m.vm, "resume", resume)


async def test_what_went_wrong_first_is_what_is_told(spec, tmp_path, monkeypatch):
    fake = Fake()
    async with machine.launch(spec, fake, home=tmp_path) as m:
        fake.faults.save = SnapshotError("the disk is full")
        is_stuck(m, monkeypatch)
        with pytest.raises(SnapshotError, match="the disk is full"):
            await m.snapshot(tmp_path / "s")
        with pytest.raises(ChannelError, match="it is stuck"):
            await m.run(["true"])
    assert not (tmp_path / "s").exists()


async def test_a_machine_that_does_not_go_on_is_told(spec, tmp_path, monkeypatch):
    async with machine.launch(spec, Fake(), home=tmp_path) as m:
        is_stuck(m, monkeypatch)
        with pytest.raises(MachineError, match="it is stuck"):
            await m.snapshot(tmp_path / "s")
        with pytest.raises(ChannelError, match="it is stuck"):
            await m.run(["true"])
    assert not (tmp_path / "s").exists()
