"""A driver whose saves cost the agent's connection, on the source too: nobody who uses the machine notices."""

import pytest

from firebrick import machine
from firebrick.machine import Fake, Faults, MachineSpec, SnapshotError


async def test_what_runs_goes_on_over_another_connection(tmp_path):
    spec = MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    driver = Fake(faults=Faults(parts=True))
    async with machine.launch(spec, driver, home=tmp_path) as made:
        async with made.exec(["cat"], stdin=True) as cat:
            for turn in (b"one", b"two", b"three"):
                await made.snapshot(tmp_path / turn.decode())
                await cat.write(turn)
                assert await cat.stdout.read() == turn
        await made.pause()
        await made.snapshot(tmp_path / "paused")
        assert made.state is machine.State.PAUSED
        await made.resume()
        assert (await made.run(["echo", "x"])).stdout == b"x\n"
        async with made.fork() as fork:
            assert fork.identity.machine_id != made.identity.machine_id
        assert driver.machines[0].guest.violations == []


async def test_a_save_that_fails_costs_nothing_but_the_snapshot(tmp_path):
    spec = MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    driver = Fake(faults=Faults(parts=True, save=SnapshotError("no space")))
    async with machine.launch(spec, driver, home=tmp_path) as made, made.exec(["cat"], stdin=True) as cat:
        with pytest.raises(SnapshotError, match="no space"):
            await made.snapshot(tmp_path / "taken")
        await cat.write(b"still")
        assert await cat.stdout.read() == b"still"
