"""What one machine needed is written down, and put there for the next one before it asks."""

from __future__ import annotations

import asyncio
import random

import pytest

from firebrick.machine.errors import HostError
from firebrick.machine.pager import is_list, serving
from tests.pager.player import PAGE
from tests.pager.test_serving import ZEROS, digests, served

NEEDED = [9, 200, 10, 3, 4, 5, 77]
AS_LIST = b"firebrick-prefetch 1\n9 1\n200 1\n10 1\n3 3\n77 1\nend 5\n"


async def until_resident(player, pages):
    async with asyncio.timeout(10):
        while await player.resident(offset=0, size=256 * PAGE) != sorted(pages):
            await asyncio.sleep(0.005)


async def test_the_order_of_faults_is_written_at_the_end_and_replayed(root, memory, tmp_path):
    record = tmp_path / "prefetch"
    async with served(root, memory=memory, record=record) as (_, player):
        await player.digests(pages=NEEDED)
        assert not record.exists()
    assert record.read_bytes() == AS_LIST
    async with served(root, memory=memory, prefetch=record) as (_, player):
        await until_resident(player, NEEDED)  # nothing was touched
        assert await player.digests(pages=list(range(256))) == digests(memory.read_bytes())


async def test_a_list_can_be_had_while_the_machine_goes_on(root, memory, tmp_path):
    record = tmp_path / "prefetch"
    async with served(root, memory=memory, record=record) as (pager, player):
        await player.digests(pages=NEEDED)
        assert await pager.recorded() == record
        assert record.read_bytes() == AS_LIST
        await player.digests(pages=list(range(256)))
        assert await pager.recorded() == record
    assert record.read_bytes() == AS_LIST


async def test_a_machine_that_ends_leaves_its_list_too(root, memory, tmp_path):
    record = tmp_path / "prefetch"
    async with served(root, memory=memory, record=record) as (pager, player):
        await player.digests(pages=NEEDED)
        player.kill()
        assert await asyncio.wait_for(pager.ended, 10) is None
    assert record.read_bytes() == AS_LIST


async def test_a_killed_page_server_leaves_no_half_list(root, memory, tmp_path):
    record = tmp_path / "prefetch"
    async with served(root, memory=memory, record=record) as (pager, player):
        await player.digests(pages=NEEDED)
        pager._running.signal(9)
        await pager.ended
        with pytest.raises(HostError, match="before it gave its list"):
            await pager.recorded()
        player.kill()
    assert list(tmp_path.glob("prefetch*")) == []


async def test_a_replay_of_everything_and_faults_do_not_disturb_each_other(root, memory, tmp_path):
    order = random.Random(5).sample(range(256), 256)
    wanted = tmp_path / "prefetch"
    wanted.write_text("firebrick-prefetch 1\n" + "".join(f"{page} 1\n" for page in order) + "end 256\n")
    expected = digests(memory.read_bytes())
    touched = random.Random(6).sample(range(256), 256)
    async with served(root, memory=memory, prefetch=wanted) as (_, player):
        assert await player.digests(pages=touched, threads=4) == [expected[page] for page in touched]


async def test_a_replay_brings_nothing_back_that_was_given_back(root, memory, tmp_path):
    wanted = tmp_path / "prefetch"
    wanted.write_text("firebrick-prefetch 1\n0 256\nend 1\n")
    for _ in range(10):
        async with served(root, memory=memory, prefetch=wanted) as (_, player):
            await player.remove(offset=0, size=256 * PAGE)
            assert await player.digests(pages=list(range(256))) == [ZEROS] * 256


@pytest.mark.parametrize(
    "text", ["", "nonsense", "firebrick-prefetch 1\n0 1\n", "firebrick-prefetch 1\n256 1\nend 1\n"]
)
async def test_a_list_that_is_not_of_this_memory_is_an_error(root, memory, tmp_path, text):
    wanted = tmp_path / "prefetch"
    wanted.write_text(text)
    async with serving(root, memory=memory, prefetch=wanted) as pager:
        error = await asyncio.wait_for(pager.ended, 10)
    assert "status 4" in str(error) and "of the prefetch list" in str(error)


async def test_recording_and_replaying_exclude_each_other(root, memory, tmp_path):
    wanted = tmp_path / "wanted"
    wanted.write_bytes(AS_LIST)
    async with serving(root, memory=memory, prefetch=wanted, record=tmp_path / "record") as pager:
        assert "exclude each other" in str(await asyncio.wait_for(pager.ended, 10))


def test_a_list_is_whole_or_it_is_none():
    assert is_list(AS_LIST) and is_list(b"firebrick-prefetch 1\nend 0\n")
    for text in (b"", AS_LIST[:-1], AS_LIST + b"x", AS_LIST.replace(b"end 5", b"end 4"), AS_LIST.replace(b"9 1", b"9")):
        assert not is_list(text)


async def test_without_a_machine_there_is_no_list(root, memory, tmp_path):
    record = tmp_path / "record"
    async with serving(root, memory=memory, record=record):
        pass
    assert not record.exists()
