"""What goes wrong on the way, on the fake driver where it can be made to."""

import asyncio
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import (
    BootError,
    ExitCause,
    Fake,
    Faults,
    HostError,
    MachineError,
    MachineGoneError,
    MachineSpec,
    SnapshotError,
    State,
)
from firebrick.machine.driver import Exit


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    return MachineSpec(kernel=tmp_path / "k", initrd=tmp_path / "i")


def left(home: Path) -> list[Path]:
    return list((home / "machines").glob("*")) + list((home / "machines").glob(".*"))


async def test_a_host_that_cannot(spec, tmp_path):
    fake = Fake(Faults(start=HostError("no memory left")))
    with pytest.raises(HostError, match="no memory left"):
        async with machine.launch(spec, fake, home=tmp_path):
            pass
    assert left(tmp_path) == []


async def test_a_silent_agent_is_waited_for_so_long_and_no_longer(spec, tmp_path):
    fake = Fake(Faults(silent=True))
    with pytest.raises(BootError, match="did not answer within 0.2 s") as caught:
        async with machine.launch(spec, fake, home=tmp_path, deadline=0.2):
            pass
    assert caught.value.console == "a machine in memory\n"
    assert caught.value.hint
    assert left(tmp_path) == []


async def test_a_machine_that_ends_at_once(spec, tmp_path):
    with pytest.raises(BootError, match="ended before its agent answered: it was told to"):
        async with machine.launch(spec, Fake(Faults(dead=True)), home=tmp_path):
            pass
    assert left(tmp_path) == []


async def test_a_driver_that_changes_its_mind_gets_another_try(spec, tmp_path):
    fake = Fake(Faults(silent=True, retry=1))

    def then_speak(seconds: float) -> bool:
        fake.faults.silent = False
        return Fake.stayed_silent(fake, seconds)

    fake.stayed_silent = then_speak
    async with machine.launch(spec, fake, home=tmp_path, deadline=0.2) as m:
        assert (await m.run(["true"])).status.ok
        assert len(left(tmp_path)) == 1
    assert len(fake.machines) == 2


async def test_a_driver_that_does_not_is_asked_once(spec, tmp_path):
    fake = Fake(Faults(silent=True))
    with pytest.raises(BootError):
        async with machine.launch(spec, fake, home=tmp_path, deadline=0.1):
            pass
    assert len(fake.machines) == 1


async def test_a_machine_that_dies_while_it_is_used(spec, tmp_path):
    fake = Fake()
    async with machine.launch(spec, fake, home=tmp_path) as m:
        async with asyncio.timeout(10):
            waiting = asyncio.create_task(m.run(["sleep", "60"]))
            await m.run(["true"])
            fake.machines[0].end(Exit(ExitCause.CRASHED, "the host's memory was full"))
            with pytest.raises(MachineGoneError, match="the host's memory was full"):
                await waiting
        assert m.state is State.ENDED
        assert (await m.wait()).cause is ExitCause.CRASHED
        assert "full" in m.console()


async def test_a_save_that_fails_leaves_no_snapshot_and_a_running_machine(spec, tmp_path):
    fake = Fake(Faults(save=SnapshotError("no space left")))
    async with machine.launch(spec, fake, home=tmp_path) as m:
        with pytest.raises(SnapshotError, match="no space left"):
            await m.snapshot(tmp_path / "s")
        assert m.state is State.RUNNING
        assert (await m.run(["true"])).status.ok
        with pytest.raises(SnapshotError):
            async with m.fork():
                pass
        assert [p.name for p in tmp_path.iterdir()] == ["machines"]


async def test_a_slow_save_holds_commands_back_and_cancelling_it_lets_them_go(spec, tmp_path):
    fake = Fake(Faults(save_s=30))
    async with machine.launch(spec, fake, home=tmp_path) as m:
        saving = asyncio.create_task(m.snapshot(tmp_path / "s"))
        while m.state is not State.SAVING or fake.machines[0].guest.quiesced is False:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(m.run(["true"]), 0.2)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert m.state is State.RUNNING
        assert (await m.run(["true"])).status.ok
        assert not (tmp_path / "s").exists()


async def test_a_machine_killed_while_it_is_saved(spec, tmp_path):
    fake = Fake(Faults(save_s=30))
    async with asyncio.timeout(10), machine.launch(spec, fake, home=tmp_path) as m:
        saving = asyncio.create_task(m.snapshot(tmp_path / "s"))
        while m.state is not State.SAVING:
            await asyncio.sleep(0)
        await m.kill()
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        assert m.state is State.ENDED


async def test_a_snapshot_of_another_driver_version_does_not_fit(spec, tmp_path):
    async with machine.launch(spec, Fake(version="1"), home=tmp_path) as m:
        taken = await m.snapshot(tmp_path / "s")
    with pytest.raises(SnapshotError, match="taken with fake 1, and this host has fake 2"):
        async with machine.restore(taken, Fake(version="2"), home=tmp_path):
            pass
    assert left(tmp_path) == []


async def test_a_driver_nobody_has(spec, tmp_path):
    with pytest.raises(MachineError, match="no driver 'xen'"):
        async with machine.launch(spec, "xen", home=tmp_path):
            pass


async def test_an_exception_in_the_body_passes_through_and_everything_is_undone(spec, tmp_path):
    fake = Fake()
    with pytest.raises(ZeroDivisionError):
        async with machine.launch(spec, fake, home=tmp_path) as m:
            raise ZeroDivisionError
    assert m.state is State.ENDED
    assert left(tmp_path) == []


async def test_a_kernel_that_can_only_reboot_has_powered_off_when_it_was_told_to(spec, tmp_path):
    fake = Fake()
    async with machine.launch(spec, fake, home=tmp_path) as m:
        stopping = asyncio.create_task(m.stop())
        while m.state is not State.STOPPING:
            await asyncio.sleep(0)
        fake.machines[0].end(Exit(ExitCause.REBOOT, "the guest rebooted"))
        assert (await stopping).cause is ExitCause.POWEROFF


async def whole_life(spec: MachineSpec, home: Path, marker: list[str]) -> None:
    async with machine.launch(spec, Fake(), home=home) as m:
        await m.run(["echo", "x"])
        async with m.fork() as copy:
            await copy.run(["true"])
            await copy.stop(deadline=1)
        await m.pause()
        await m.resume()
    marker.append("done")


async def test_cancelled_at_every_point_of_its_life_it_leaves_nothing(spec, tmp_path):
    """One cancellation after each number of turns of the event loop, until a life is over before it is cancelled."""
    marker: list[str] = []
    turns = 0
    others = asyncio.all_tasks()
    while not marker:
        turns += 1
        task = asyncio.create_task(whole_life(spec, tmp_path, marker))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or (marker and task.exception() is None), task
        assert left(tmp_path) == []
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() - others == set()
    assert turns > 30
