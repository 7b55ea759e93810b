"""States, snapshots, forks, identity, the end."""

import asyncio
import time

import pytest

from firebrick import machine
from firebrick.machine import ExitCause, Machine, MachineGoneError, SnapshotError, State, StateError
from tests.conformance.ways import IN_LAB, PACE


@pytest.mark.every_way
@pytest.mark.rooms
async def test_a_machine_that_is_given_runs(m: Machine):
    assert m.state is State.RUNNING
    assert m.agent.hello.version == 1
    assert await m.agent.ping() < 5 * PACE


@pytest.mark.every_way
@pytest.mark.rooms
async def test_a_paused_machine_stands_still(m: Machine):
    async with m.exec(["sh", "-c", "echo a; cat"], stdin=True) as process:
        assert await process.stdout.read() == b"a\n"
        await m.pause()
        await m.pause()
        assert m.state is State.PAUSED
        await process.write(b"waits\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.stdout.read(), 0.3)
        with pytest.raises(StateError, match="it is paused"):
            await m.run(["true"])
        await m.resume()
        await m.resume()
        assert await process.stdout.read() == b"waits\n"
    assert (await m.run(["true"])).status.ok


@pytest.mark.every_way
@pytest.mark.rooms
async def test_a_snapshot_does_not_change_its_source(m: Machine, tmp_path):
    await m.files.write("/tmp/before", b"1")
    async with m.exec(["cat"], stdin=True) as process:
        await process.write(b"x\n")
        assert await process.stdout.read() == b"x\n"
        taken = await m.snapshot(tmp_path / "snap")
        await m.files.write("/tmp/after", b"2")
        await process.write(b"y\n")
        assert await process.stdout.read() == b"y\n"
    assert m.state is State.RUNNING
    async with machine.restore(taken, m.driver, home=tmp_path) as copy:
        assert await copy.files.read("/tmp/before") == b"1"
        assert not await copy.files.exists("/tmp/after")
        await copy.files.write("/tmp/copy", b"3")
    assert not await m.files.exists("/tmp/copy")
    assert await m.files.read("/tmp/after") == b"2"


async def test_a_paused_machine_can_be_saved_and_stays_paused(m: Machine, tmp_path):
    await m.files.write("/tmp/x", b"1")
    await m.pause()
    taken = await m.snapshot(tmp_path / "snap")
    assert m.state is State.PAUSED
    async with machine.restore(taken, m.driver, home=tmp_path) as copy:
        assert await copy.files.read("/tmp/x") == b"1"
    await m.resume()
    assert (await m.run(["true"])).status.ok


async def test_two_snapshots_take_turns(m: Machine, tmp_path):
    one, two = await asyncio.gather(m.snapshot(tmp_path / "1"), m.snapshot(tmp_path / "2"))
    assert one.id != two.id
    async with machine.restore(two, m.driver, home=tmp_path) as copy:
        assert (await copy.run(["true"])).status.ok


async def test_a_snapshot_is_not_put_over_something(m: Machine, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(SnapshotError, match="cannot keep the snapshot"):
        await m.snapshot(tmp_path / "taken")
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["file"]
    assert (await m.run(["true"])).status.ok


@pytest.mark.every_way
@pytest.mark.rooms
async def test_forks_of_forks(m: Machine):
    await m.files.write("/tmp/x", b"0")
    async with m.fork() as first:
        await first.files.write("/tmp/x", b"1")
        async with first.fork() as second:
            assert await second.files.read("/tmp/x") == b"1"
            await second.files.write("/tmp/x", b"2")
        assert await first.files.read("/tmp/x") == b"1"
    assert await m.files.read("/tmp/x") == b"0"


async def test_eight_forks_of_one_instant_are_eight_machines(m: Machine):
    await m.files.write("/tmp/x", b"same")
    async with m.forks(8) as copies:
        names = await asyncio.gather(*(copy.run(["hostname"], check=True) for copy in copies))
        assert len({done.stdout for done in names}) == 8
        for i, copy in enumerate(copies):
            assert await copy.files.read("/tmp/x") == b"same"
            await copy.files.write("/tmp/x", str(i).encode())
        assert [await copy.files.read("/tmp/x") for copy in copies] == [str(i).encode() for i in range(8)]
        assert len({copy.identity.machine_id for copy in (m, *copies)}) == 9


@pytest.mark.real
async def test_nothing_that_tells_machines_apart_is_shared(m: Machine):
    script = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1"
    async with m.forks(3) as copies:
        for all_ in zip(
            *[(await c.run(["sh", "-c", script], check=True)).stdout.splitlines() for c in (m, *copies)], strict=True
        ):
            assert len(set(all_)) == 4
        for copy in copies:
            assert (await copy.run(["cat", "/etc/machine-id"])).stdout.decode().strip() == copy.identity.machine_id


@pytest.mark.every_way
@pytest.mark.real
async def test_the_clock_is_right_whenever_the_machine_began(m: Machine):
    before = time.time()
    now = float((await m.run(["date", "+%s.%N"], check=True)).stdout)
    assert before - 2 < now < time.time() + 2


@pytest.mark.real
async def test_a_snapshot_taken_while_it_writes_is_consistent(m: Machine, tmp_path):
    writes = "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; echo $i; done"
    async with m.exec(["sh", "-c", writes]) as process:
        assert await process.stdout.read()
        process.stdout.discard()
        taken = await m.snapshot(tmp_path / "snap")
        async with machine.restore(taken, m.driver, home=tmp_path) as copy:
            first = int(await copy.files.read("/tmp/count"))
            await copy.run(["sh", "-c", until_past(first + 3)], check=True, timeout=20 * PACE)
            await copy.run(["sync"], check=True)
        await m.run(["sh", "-c", until_past(first + 3)], check=True, timeout=20 * PACE)


def until_past(number: int) -> str:
    return f"until [ $(cat /tmp/count) -gt {number} ]; do :; done"


@pytest.mark.every_way
@pytest.mark.rooms
async def test_stop_powers_off_and_is_idempotent(m: Machine):
    end = await m.stop(deadline=20 * PACE)
    assert end.cause is ExitCause.POWEROFF
    assert m.state is State.ENDED
    assert await m.stop() == end
    assert await m.kill() == end
    assert await m.wait() == end
    with pytest.raises(StateError, match="it has ended"):
        await m.run(["true"])
    with pytest.raises(StateError, match="it has ended"):
        await m.pause()


async def test_a_paused_machine_can_be_stopped(m: Machine):
    await m.pause()
    assert (await m.stop(deadline=20 * PACE)).cause is ExitCause.POWEROFF


@pytest.mark.every_way
@pytest.mark.rooms
async def test_kill_ends_what_waits(m: Machine):
    async with asyncio.timeout(20 * PACE):
        waiting = asyncio.create_task(m.run(["sleep", "60"]))
        await m.run(["true"])
        end = await m.kill()
        assert end.cause is ExitCause.KILLED
        with pytest.raises(MachineGoneError, match="it was killed"):
            await waiting
    assert m.console() is not None


async def test_kill_works_on_a_paused_machine(m: Machine):
    await m.pause()
    assert (await m.kill()).cause is ExitCause.KILLED


async def test_a_snapshot_of_an_ended_machine_is_denied(m: Machine, tmp_path):
    await m.kill()
    with pytest.raises(StateError, match="it has ended"):
        await m.snapshot(tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.real
async def test_two_users_of_one_machine_do_not_disturb_each_other(m: Machine, tmp_path):
    """A long transfer, a flood of output and short commands, all at once."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "big").write_bytes(bytes((12 if IN_LAB else 48) << 20))
    async with m.exec(["yes"]) as flood:
        flood.stdout.discard()
        upload = asyncio.create_task(m.upload(tmp_path / "t", "/tmp/t"))
        slowest = 0.0
        while not upload.done():
            began = time.monotonic()
            await m.run(["true"], check=True)
            slowest = max(slowest, time.monotonic() - began)
        await upload
    assert slowest < 5 * PACE
