"""Snapshots that are differences to others, on every driver; and that nothing of a snapshot is trusted that was tampered with."""

from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Baseline, Fake, Machine, Snapshot, SnapshotError
from tests.conformance.conftest import Way

# Not cksum: it multiplies without carry where the processor says it can, and an emulated one under an emulated one says so and cannot.
SCRIPT = "for i in $(seq 1 400); do echo $i$i$i$i; done > /dev/shm/lines; md5sum < /dev/shm/lines"


def allocated(snapshot: Snapshot) -> int:
    return (snapshot.path / "memory").stat().st_blocks * 512


async def say(m: Machine, path: str, text: bytes) -> None:
    await m.files.write(path, text)


async def test_a_chain_of_differences(way: Way, tmp_path: Path):
    """Each machine comes from the difference that the one before has left."""
    async with way.start() as first:
        await say(first, "/tmp/1", b"one")
        full = await first.snapshot(tmp_path / "full")
    taken = full
    for number in (2, 3, 4):
        async with machine.restore(taken, way.made, home=way.home) as m:
            assert m.base is not None
            assert m.base.id == taken.id
            for before in range(1, number):
                assert await m.files.exists(f"/tmp/{before}")
            await say(m, f"/tmp/{number}", b"x" * 5000)
            taken = await m.snapshot(tmp_path / f"diff-{number}", taken)
            assert (await m.run(["true"])).status.ok
            if way.driver != "fake":
                assert allocated(taken) < allocated(full)
    assert [link.path.name for link in taken.chain] == ["diff-4", "diff-3", "diff-2", "full"]
    flat = await taken.flatten(tmp_path / "flat", home=way.home)
    for link in (*taken.chain,):
        link.remove()
    async with machine.restore(flat, way.made, home=way.home) as m:
        assert await m.files.read("/tmp/1") == b"one"
        assert await m.files.read("/tmp/4") == b"x" * 5000


@pytest.mark.real
async def test_what_is_only_in_memory_is_in_the_chain(way: Way, tmp_path: Path):
    """Pages that were written, and pages that became zero again, in every link."""
    async with way.start() as m:
        await m.run(["sh", "-c", SCRIPT], check=True)
        full = await m.snapshot(tmp_path / "full")
    async with machine.restore(full, way.made, home=way.home) as m:
        await m.run(
            ["sh", "-c", "head -c 6000000 /dev/zero | tr '\\0' y > /dev/shm/y; md5sum /dev/shm/y > /dev/shm/sum"]
        )
        one = await m.snapshot(tmp_path / "1", full)
    async with machine.restore(one, way.made, home=way.home) as m:
        await m.run(["sh", "-c", "head -c 6000000 /dev/zero > /dev/shm/y; sync"], check=True)
        two = await m.snapshot(tmp_path / "2", one)
    async with machine.restore(two, way.made, home=way.home) as m:
        same = "md5sum < /dev/shm/lines; head -c 6000000 /dev/zero | cmp - /dev/shm/y && echo zero; cat /dev/shm/sum"
        there = (await m.run(["sh", "-c", same], check=True)).stdout
    async with machine.restore(one, way.made, home=way.home) as m:
        other = (await m.run(["sh", "-c", "md5sum /dev/shm/y | cmp - /dev/shm/sum && echo same"], check=True)).stdout
    assert b"zero\n" in there
    assert other == b"same\n"


async def test_a_difference_to_something_else_is_refused(way: Way, tmp_path: Path):
    async with way.start() as m:
        full = await m.snapshot(tmp_path / "full")
    async with machine.restore(full, way.made, home=way.home) as one:
        other = await one.snapshot(tmp_path / "other")
        wrong = full if one.base is not None and one.base.id == other.id else other
        with pytest.raises(SnapshotError, match=f"as a difference to {wrong.path}: only what changed since") as caught:
            await one.snapshot(tmp_path / "no", wrong)
        assert "full" in caught.value.hint
        assert not (tmp_path / "no").exists()
        assert (await one.run(["true"])).status.ok
        async with one.fork() as fork:
            with pytest.raises(SnapshotError, match="what changed in its memory since is not known"):
                await fork.snapshot(tmp_path / "no", full)


@pytest.mark.parametrize("name", ["memory", "state"])
async def test_a_tampered_file_is_refused_by_its_name(way: Way, tmp_path: Path, name: str):
    async with way.start() as m:
        full = await m.snapshot(tmp_path / "full")
    if name not in full.files:
        name = "memory"
    with (full.path / name).open("r+b") as file:
        raw = file.read(4096)
        file.seek(0)
        file.write(bytes(255 - byte for byte in raw))
    with pytest.raises(SnapshotError, match=f"{full.path / name} is not what was saved"):
        async with machine.restore(full, way.made, home=way.home):
            pass


async def test_a_base_that_is_gone_is_said_before_anything_starts(way: Way, tmp_path: Path):
    async with way.start() as m:
        full = await m.snapshot(tmp_path / "full")
    async with machine.restore(full, way.made, home=way.home) as m:
        difference = await m.snapshot(tmp_path / "diff", m.base)
    with pytest.raises(SnapshotError, match=f"{difference.path} is a difference to it"):
        full.remove()
    full.path.rename(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match=f"{full.path}, which is gone"):
        Snapshot.load(difference.path)


async def test_a_driver_that_counts_from_the_last_snapshot(tmp_path: Path, way: Way):
    """The other kind of driver: every snapshot is the base of the next, of one machine that goes on."""
    fake = Fake(baseline=Baseline.LAST)
    async with machine.launch(way.spec, fake, home=way.home) as m:
        assert m.base is None
        taken = await m.snapshot(tmp_path / "0")
        for number in (1, 2):
            await say(m, f"/tmp/{number}", b"%d" % number)
            assert m.base is not None
            assert m.base.id == taken.id
            taken = await m.snapshot(tmp_path / str(number), taken)
        async with m.fork():
            assert m.base is None  # a snapshot was taken, and is not kept
    async with machine.restore(taken, fake, home=way.home) as m:
        assert await m.files.read("/tmp/2") == b"2"
        assert m.base is not None
        assert m.base.id == taken.id
