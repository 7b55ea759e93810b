"""Machines that outlive the process that started them, and the one that goes on with them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import AdoptionError, ExitCause, Machine, MachineGoneError, SpecError, State, StateError, owner
from firebrick.machine.jail import record
from tests.conformance.conftest import Way

IDENTITY = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id"
ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join([f"{ROOT}/src", str(ROOT), *sys.path])


async def names(m: Machine) -> bytes:
    return (await m.run(["sh", "-c", IDENTITY], check=True)).stdout


async def owner_process(way: Way, *words: object, stdin: int | None = None) -> asyncio.subprocess.Process:
    argv = (sys.executable, "-m", "tests.conformance.owner_process", way.driver, str(way.home), *map(str, words))
    environment = {**os.environ, "PYTHONPATH": PATHS}
    return await asyncio.create_subprocess_exec(
        *argv, stdin=stdin, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
    )


@asynccontextmanager
async def owned_by_another(way: Way, *steps: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path, list[str]]]:
    """A machine that a process of its own has started, detached: the process, the machine's directory, what it said. The process is killed."""
    process = await owner_process(way, way.template().path, *steps)
    assert process.stdout is not None
    said: list[str] = []
    async with asyncio.timeout(60):
        while (line := (await process.stdout.readline()).decode().strip()) != "ready":
            assert line, "the process ended early"
            said.append(line)
    try:
        yield process, Path(said[0]), said[1:]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        machine.reap(way.home / "machines")


def vmm_of(directory: Path) -> list[int]:
    """The machine's process, if it runs."""
    jailed = record.read(directory)
    return owner.processes_of(directory.name) if jailed is None else [jailed.pid] * jailed.runs


async def killed(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.communicate()


@pytest.mark.detaching
async def test_released_and_adopted_it_is_the_same_machine(way: Way):
    async with way.start(detached=True) as before:
        if way.driver != "fake":
            await before.run(["sh", "-c", "echo said before > /dev/console"], check=True)
        await before.files.write("/tmp/x", b"1")
        await before.release()
        await before.release()
        assert before.state is State.RELEASED
        with pytest.raises(StateError, match="it was released"):
            await before.run(["true"])
        with pytest.raises(StateError, match="it was released"):
            await before.kill()
    assert before.directory.is_dir()
    assert not machine.adoptable(way.home / "machines") or way.driver != "fake"
    async with machine.adopt(before.directory, way.made, home=way.home) as m:
        assert (m.id, m.spec) == (before.id, before.spec)
        assert m.identity.hostname == before.identity.hostname
        assert m.identity.machine_id == before.identity.machine_id
        assert m.identity.entropy != before.identity.entropy
        assert await m.files.read("/tmp/x") == b"1"
        if way.driver != "fake":
            assert "said before" in m.console()
            await m.run(["sh", "-c", "echo said after > /dev/console"], check=True)
            async with asyncio.timeout(10):
                while "said after" not in m.console():
                    await asyncio.sleep(0.01)
        assert (await m.stop(deadline=20)).cause is ExitCause.POWEROFF
    assert not before.directory.exists()


@pytest.mark.detaching
@pytest.mark.real
@pytest.mark.once
async def test_a_machine_goes_on_after_its_owner_was_killed(way: Way, tmp_path: Path):
    async with owned_by_another(way) as (process, directory, _):
        with pytest.raises(AdoptionError, match=f"process {process.pid} has it"):
            async with machine.adopt(directory, way.made, home=way.home):
                pass
        await killed(process)
        assert machine.adoptable(way.home / "machines") == [directory]
        assert machine.reap(way.home / "machines", spare_adoptable=True) == []
        async with machine.adopt(directory, way.made, home=way.home) as m:
            assert machine.adoptable(way.home / "machines") == []
            before = (await m.files.read("/tmp/identity")).decode().split()
            assert (await names(m)).decode().split() == before
            assert (await m.run(["pgrep", "-c", "sleep"])).stdout.strip() == b"1"  # the detached one of two
            taken = await m.snapshot(tmp_path / "diff", m.base)
            assert taken.base is not None
            await m.pause()
            await m.resume()
            async with m.fork() as fork:
                assert (await names(fork)).decode().split() != before
            end = await m.kill()
            assert end.cause is ExitCause.KILLED
        async with machine.restore(taken, way.made, home=way.home) as copy:
            assert await copy.files.exists("/tmp/identity")


@pytest.mark.detaching
@pytest.mark.real
@pytest.mark.once
@pytest.mark.parametrize("step", ["paused", "quiesced", "sealed"])
async def test_an_owner_killed_in_the_middle_of_a_snapshot(way: Way, tmp_path: Path, step: str):
    async with owned_by_another(way, step) as (process, directory, _):
        await killed(process)
        async with machine.adopt(directory, way.made, home=way.home) as m:
            jailed = record.read(directory)
            if jailed is not None and jailed.memory is not None:
                assert int((Path(jailed.group) / "memory.max").read_text()) == jailed.memory
            before = (await m.files.read("/tmp/identity")).decode().split()
            assert (await names(m)).decode().split() == before
            await m.files.write("/tmp/after", b"x" * 100_000)
            await m.run(["sync"], check=True)
            async with m.fork() as fork:
                assert await fork.files.read("/tmp/after") == b"x" * 100_000
            await m.snapshot(tmp_path / "s")


@pytest.mark.detaching
@pytest.mark.real
@pytest.mark.once
async def test_without_being_told_to_spare_it_it_is_reaped(way: Way):
    async with owned_by_another(way) as (process, directory, _):
        await killed(process)
        assert machine.reap(way.home / "machines") == [directory.name]
        assert not directory.exists()
        assert vmm_of(directory) == []
        with pytest.raises(AdoptionError, match="No such file"):
            async with machine.adopt(directory, way.made, home=way.home):
                pass


@pytest.mark.detaching
@pytest.mark.real
@pytest.mark.once
async def test_the_end_of_a_machine_nobody_attended_to(way: Way):
    async with owned_by_another(way) as (process, directory, _):
        await killed(process)
        [pid] = vmm_of(directory)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while vmm_of(directory):
                await asyncio.sleep(0.01)
        assert machine.adoptable(way.home / "machines") == []
        with pytest.raises(MachineGoneError, match="it has ended"):
            async with machine.adopt(directory, way.made, home=way.home):
                pass
        assert not directory.exists()


@pytest.mark.detaching
@pytest.mark.real
@pytest.mark.once
async def test_the_end_of_an_adopted_machine_is_told_as_far_as_it_is_known(way: Way):
    async with owned_by_another(way) as (process, directory, _):
        await killed(process)
        async with machine.adopt(directory, way.made, home=way.home) as m:
            assert m.pid is not None
            os.kill(m.pid, signal.SIGKILL)
            end = await asyncio.wait_for(m.wait(), 10)
            assert end.cause is ExitCause.CRASHED
            assert "not known" in end.message


@pytest.mark.detaching
async def test_of_several_who_try_one_gets_it(way: Way):
    async with way.start(detached=True) as before:
        await before.release()
    won: list[str] = []
    over = asyncio.Event()

    async def attempt() -> None:
        try:
            async with machine.adopt(before.directory, way.made, home=way.home) as m:
                won.append(m.id)
                await over.wait()
        except AdoptionError:
            return

    tasks = [asyncio.create_task(attempt()) for _ in range(8)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    async with asyncio.timeout(20):
        while sum(task.done() for task in tasks) < 7 or not won:
            await asyncio.sleep(0.01)
    over.set()
    await asyncio.gather(*tasks)
    assert won == [before.id]


@pytest.mark.detaching
@pytest.mark.real
@pytest.mark.once
async def test_of_several_processes_that_try_one_gets_it(way: Way):
    async with owned_by_another(way) as (process, directory, _):
        await killed(process)
        racers = [await owner_process(way, directory, "adopt", stdin=asyncio.subprocess.PIPE) for _ in range(4)]
        words = await asyncio.gather(*(asyncio.wait_for(r.stdout.readline(), 60) for r in racers))
        for racer in racers:
            await racer.communicate(b"")
        assert sorted(words) == [b"adopted\n", b"refused\n", b"refused\n", b"refused\n"]
        assert not directory.exists()


async def test_a_machine_that_was_not_made_for_it_is_not_adopted(way: Way):
    async with way.start() as m:
        with pytest.raises(StateError, match="not made to outlive"):
            await m.release()
        with pytest.raises(AdoptionError, match=f"process {os.getpid()} has it"):
            async with machine.adopt(m.directory, way.made, home=way.home):
                pass
        assert m.state is State.RUNNING
        assert (await m.run(["true"])).status.ok


@pytest.mark.detaching
async def test_a_detached_machine_ends_with_its_context_unless_it_is_released(way: Way):
    async with way.start(detached=True) as m:
        assert (await m.run(["true"])).status.ok
    assert m.state is State.ENDED
    assert not m.directory.exists()


@pytest.mark.every_way
async def test_another_name_for_whoever_gets_it(m: Machine):
    before = m.identity
    labels = dict(m.spec.labels)
    async with m.exec(["cat"], stdin=True) as process:
        with pytest.raises(SpecError, match="cannot call a machine 'no name'"):
            await m.rename(hostname="no name")
        await m.rename(hostname="yours", labels={"job": "7"})
        await process.write(b"goes on\n")
        assert await process.stdout.read() == b"goes on\n"
    assert (await m.run(["hostname"], check=True)).stdout == b"yours\n"
    assert (await m.files.read("/etc/machine-id")).decode().strip() == m.identity.machine_id
    assert m.identity.machine_id != before.machine_id
    assert m.identity.entropy != before.entropy
    assert m.spec.labels == {"job": "7"} != labels


@pytest.mark.detaching
async def test_renamed_it_is_adopted_under_its_new_name(way: Way):
    async with way.start(detached=True) as before:
        await before.rename(hostname="yours", labels={"job": "7"})
        await before.release()
    async with machine.adopt(before.directory, way.made, home=way.home) as m:
        assert m.identity.hostname == "yours"
        assert m.spec.labels == {"job": "7"}
        assert (await m.run(["hostname"], check=True)).stdout == b"yours\n"


def test_of_a_machine_whose_record_is_damaged(tmp_path: Path):
    with owner.claimed(tmp_path / "m", "m"):
        (tmp_path / "m" / owner.ADOPTABLE).write_text("{")
        with owner.releasing(tmp_path / "m"):
            pass
    with pytest.raises(AdoptionError, match="damaged"):
        asyncio.run(_adopt(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


async def _adopt(directory: Path) -> None:
    async with machine.adopt(directory, home=directory.parent):
        raise AssertionError
