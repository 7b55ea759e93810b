"""Events are spooled without loss to readers of any speed."""

import asyncio
import os

import pytest

from firebrick.node.event import LogLine, RunFinished, RunStarted
from firebrick.node.journal import Journal


def line(number: int) -> LogLine:
    return LogLine(at=float(number), job="build", step=0, stream="stdout", text=f"line {number}")


async def collect(journal: Journal) -> list[object]:
    return [event async for event in journal.read()]


async def test_every_reader_gets_every_event_whenever_it_starts(tmp_path):
    with Journal.create(tmp_path / "runs") as journal:
        early = asyncio.create_task(collect(journal), name="early")
        for number in range(100):
            journal.append(line(number))
            if number == 50:
                await asyncio.sleep(0)
        late = asyncio.create_task(collect(journal), name="late")
        await asyncio.sleep(0)
    expected = [line(number) for number in range(100)]
    assert await early == expected
    assert await late == expected


async def test_records_longer_than_a_block_and_cut_by_it_come_whole(tmp_path):
    long = LogLine(at=1.0, job="build", step=0, stream="stdout", text="x" * 700_000)
    with Journal.create(tmp_path) as journal:
        for _ in range(3):
            journal.append(long)
        reader = asyncio.create_task(collect(journal))
        await asyncio.sleep(0)
    assert await reader == [long] * 3


async def test_a_reader_that_lags_slows_nobody_down(tmp_path):
    with Journal.create(tmp_path) as journal:
        slow = journal.read()
        journal.append(line(0))
        assert await anext(slow) == line(0)
        for number in range(1, 20_000):
            journal.append(line(number))
        rest = asyncio.create_task(collect(journal))
        await asyncio.sleep(0)
        journal.close()
        assert len(await rest) == 20_000
        assert [event async for event in slow][-1] == line(19_999)


async def test_the_file_has_no_name_and_goes_with_the_last_reader(tmp_path):
    journal = Journal.create(tmp_path)
    assert list(tmp_path.iterdir()) == []
    before = len(os.listdir("/proc/self/fd"))
    journal.append(line(1))
    reader = journal.read()
    assert await anext(reader) == line(1)
    journal.close()
    journal.close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(StopAsyncIteration):
        await anext(reader)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert await collect(journal) == []


async def test_events_keep_their_class(tmp_path):
    finished = RunFinished(at=2.0, run="r", conclusion="success", seconds=1.0)
    with Journal.create(tmp_path) as journal:
        journal.append(finished)
        reader = asyncio.create_task(collect(journal))
        await asyncio.sleep(0)
    [event] = await reader
    assert isinstance(event, RunFinished)


async def test_halves_of_surrogate_pairs_lose_no_event(tmp_path):
    with Journal.create(tmp_path) as journal:
        journal.append(RunStarted(at=0.0, run="r", workflow="x\ud800", jobs=("a\udfff", "b")))
        reader = asyncio.create_task(collect(journal))
        await asyncio.sleep(0)
    assert await reader == [RunStarted(at=0.0, run="r", workflow="x\ufffd", jobs=("a\ufffd", "b"))]
