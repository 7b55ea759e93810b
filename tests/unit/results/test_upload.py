"""Blocks in, one content out: in any order, again, cut off, too large."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from firebrick.results.artifact import Finished
from firebrick.results.errors import InvalidError, MissingError, QuotaError, TakenError
from firebrick.results.limits import MOST_UPLOADS
from firebrick.results.parts import Parts
from firebrick.results.serve import sweep
from firebrick.results.staging import Body
from tests.unit.results.conftest import World, body, grant


async def new(parts: Parts, name: str = "n", run: str = "1") -> int:
    return await parts.artifacts.create(grant(run), name)


async def test_blocks_come_in_any_order_and_the_list_says_which(parts: Parts, world: World):
    number = await new(parts)
    for block_id, data in (("Yw==", b"ccc"), ("YQ==", b"a"), ("Yg==", b"old"), ("eA==", b"unused"), ("Yg==", b"bb")):
        await parts.uploads.put_block(number, block_id, body(data, length=len(data)))
    upload = await parts.uploads.commit(number, ["YQ==", "Yg==", "Yw==", "YQ=="])
    assert (upload.sha256, upload.size) == (hashlib.sha256(b"abbccca").hexdigest(), 7)
    assert world.contents() == {upload.sha256}
    assert world.staged() == set()


async def test_a_commit_whose_answer_was_lost_may_be_repeated(parts: Parts):
    number = await new(parts)
    await parts.uploads.put_block(number, "YQ==", body(b"a"))
    first, second = await asyncio.gather(*(parts.uploads.commit(number, ["YQ=="]) for _ in range(2)))
    assert first == second
    with pytest.raises(TakenError):
        await parts.uploads.commit(number, [])
    with pytest.raises(TakenError):
        await parts.uploads.put_block(number, "YQ==", body(b"b"))
    whole = await new(parts, "w")
    kept = await parts.uploads.put_whole(whole, body(b"all"))
    assert await parts.uploads.put_whole(whole, body(b"all")) == kept
    with pytest.raises(TakenError):
        await parts.uploads.put_whole(whole, body(b"other"))


async def test_a_block_that_was_never_received_is_an_error_and_the_upload_goes_on(parts: Parts):
    number = await new(parts)
    await parts.uploads.put_block(number, "YQ==", body(b"a"))
    with pytest.raises(InvalidError, match="never received"):
        await parts.uploads.commit(number, ["YQ==", "Yg=="])
    await parts.uploads.put_block(number, "Yg==", body(b"b"))
    assert (await parts.uploads.commit(number, ["YQ==", "Yg=="])).size == 2


async def test_a_corrupted_block_is_not_kept(parts: Parts, world: World):
    number = await new(parts)
    right = hashlib.md5(b"right").digest()
    with pytest.raises(InvalidError, match="MD5"):
        await parts.uploads.put_block(number, "YQ==", body(b"wrong", md5=right))
    with pytest.raises(InvalidError, match="announced"):
        await parts.uploads.put_block(number, "YQ==", body(b"short", length=9))
    assert {path.partition("/")[2] for path in world.staged()} == {""}
    await parts.uploads.put_block(number, "YQ==", body(b"right", md5=right))
    assert (await parts.uploads.commit(number, ["YQ=="])).size == 5


async def test_an_upload_goes_on_in_the_next_process(world: World):
    async with world.open() as parts:
        number = await new(parts)
        await parts.uploads.put_block(number, "YQ==", body(b"first"))

        async def broken() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await parts.uploads.put_block(number, "Yg==", Body(chunks=broken()))
    async with world.open() as parts:
        await parts.uploads.put_block(number, "Yg==", body(b"second"))
        upload = await parts.uploads.commit(number, ["YQ==", "Yg=="])
        assert upload.sha256 == hashlib.sha256(b"firstsecond").hexdigest()


async def test_ranges_are_put_together_by_where_they_begin(parts: Parts):
    number = await new(parts)
    await parts.uploads.put_range(number, 10, body(b"b" * 5))
    with pytest.raises(InvalidError, match="from 0 on are missing"):
        await parts.uploads.commit_ranges(number, 15)
    await parts.uploads.put_range(number, 0, body(b"a" * 10))
    with pytest.raises(InvalidError, match="15 bytes"):
        await parts.uploads.commit_ranges(number, 16)
    assert (await parts.uploads.commit_ranges(number, 15)).size == 15


async def test_what_is_on_its_way_in_is_bounded_and_given_back(world: World):
    async with world.open(upload_mib=1) as parts:
        number, other = await new(parts), await new(parts, "o", run="2")
        await parts.uploads.put_block(number, "YQ==", body(b"x" * (700 << 10)))
        for announced in (400 << 10, None):
            with pytest.raises(QuotaError, match="1 MiB"):
                await parts.uploads.put_block(other, "YQ==", body(b"x" * (400 << 10), length=announced))
        await parts.uploads.put_block(number, "YQ==", body(b"y" * (100 << 10)))
        await parts.uploads.put_block(other, "YQ==", body(b"x" * (800 << 10)))
        with pytest.raises(QuotaError, match="1 MiB"):
            await parts.uploads.commit(other, ["YQ=="] * 100)
        await parts.uploads.commit(other, ["YQ=="])
        await parts.uploads.put_block(number, "Yg==", body(b"x" * (800 << 10)))


async def test_contents_that_wait_to_be_taken_are_on_their_way_in(world: World):
    async with world.open(upload_mib=1) as parts:
        numbers = [await new(parts, f"n{number}", run=str(number)) for number in range(3)]
        for number in numbers[:2]:
            await parts.uploads.put_whole(number, body(bytes([number]) * (500 << 10)))
        with pytest.raises(QuotaError, match="1 MiB"):
            await parts.uploads.put_whole(numbers[2], body(b"x" * (500 << 10)))
        assert len(world.contents()) == 2
        assert not [name for name in world.staged() if "part-" in name]
        await parts.artifacts.finalize(grant("0"), Finished(name="n0", size=500 << 10, sha256=None))
        await parts.uploads.put_whole(numbers[2], body(b"x" * (500 << 10)))


async def test_a_block_of_an_upload_that_was_given_up_ends(parts: Parts, world: World):
    number, came = await new(parts), []

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x"
            came.append(1)
            if len(came) == 2:
                await new(parts)

    with pytest.raises(MissingError, match="given up"):
        await parts.uploads.put_block(number, "YQ==", Body(chunks=endless()))
    assert len(came) == 2
    assert world.staged() == set()


async def test_a_disk_that_becomes_full_while_a_block_comes_ends_it(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
):
    number, real = await new(parts), shutil.disk_usage

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * (1 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=0))
        for _ in range(4):
            yield b"x" * (1 << 20)

    with pytest.raises(QuotaError, match="disk"):
        await parts.uploads.put_block(number, "YQ==", Body(chunks=chunks()))
    assert not [name for name in world.staged() if "part-" in name]


async def test_a_content_that_is_forgotten_is_gone_at_once(parts: Parts, world: World):
    """A client that begins again and again would fill the disk before the next sweep."""
    for data in (b"first", b"second"):
        await parts.uploads.put_whole(await new(parts), body(data))
    assert world.contents() == {hashlib.sha256(b"second").hexdigest()}
    await parts.artifacts.finalize(grant(), Finished(name="n", size=6, sha256=None))
    await parts.artifacts.delete(grant(), "n")
    assert world.contents() == set()


async def test_an_archive_a_killed_process_was_making_goes(parts: Parts, world: World):
    await new(parts)
    old, young = (world.directory / "staging" / f"part-{name}" for name in ("old", "young"))
    for file in (old, young):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    await swept(parts)
    assert world.staged() == {"part-young"}


async def test_a_full_disk_is_said_before_it_is_full(world: World):
    async with world.open(free_mib=1 << 40) as parts:
        number = await new(parts)
        with pytest.raises(QuotaError, match="disk"):
            await parts.uploads.put_block(number, "YQ==", body(b"x"))


async def test_a_run_has_so_many_uploads_open_and_no_more(parts: Parts):
    for number in range(MOST_UPLOADS):
        await new(parts, f"n{number}")
    with pytest.raises(QuotaError, match="not finished"):
        await new(parts, "one more")
    assert await new(parts, "one more", run="2")


@pytest.mark.parametrize("block_id", ["", "x" * 129])
async def test_the_id_of_a_block_is_short(parts: Parts, block_id: str):
    with pytest.raises(InvalidError, match="id"):
        await parts.uploads.put_block(await new(parts), block_id, body(b"x"))


async def test_an_upload_nobody_finishes_is_forgotten(world: World):
    async with world.open() as parts:
        number = await new(parts)
        await parts.uploads.put_block(number, "YQ==", body(b"x"))
        world.time.days(1)
        with pytest.raises(MissingError):
            await parts.uploads.put_block(number, "YQ==", body(b"x"))
    async with world.open() as parts:
        await swept(parts)
        assert world.staged() == set()
        assert await new(parts) > number, "no number is used twice"


async def swept(parts: Parts) -> None:
    await sweep(parts.uploads._database, parts.uploads._blobs, parts)


async def test_contents_nothing_refers_to_are_removed_and_shared_ones_stay(parts: Parts, world: World):
    for run, data in (("1", b"same"), ("2", b"same"), ("2", b"other")):
        number = await new(parts, data.decode(), run=run)
        kept = await parts.uploads.put_whole(number, body(data))
        await parts.artifacts.finalize(grant(run), Finished(name=kept.name, size=len(data), sha256=kept.sha256))
    assert len(world.contents()) == 2
    await parts.artifacts.delete(grant("1"), "same")
    await swept(parts)
    assert len(world.contents()) == 2
    await parts.artifacts.delete(grant("2"), "same")
    await swept(parts)
    assert world.contents() == {hashlib.sha256(b"other").hexdigest()}


async def test_a_committed_upload_keeps_its_content_until_it_is_taken(parts: Parts, world: World):
    kept = await parts.uploads.put_whole(await new(parts), body(b"x"))
    await swept(parts)
    assert world.contents() == {kept.sha256}


async def test_files_of_a_process_that_was_killed_half_way_go_at_the_next_start(world: World):
    async with world.open() as parts:
        kept = await parts.uploads.put_whole(await new(parts), body(b"x"))
    assert kept.sha256 is not None
    stray = world.directory / "blobs/ab" / ("ab" + "0" * 62)
    stray.parent.mkdir()
    stray.write_bytes(b"no row")
    async with world.open():
        assert world.contents() == {kept.sha256}
    with closing(sqlite3.connect(world.directory / "results.db")) as database:
        assert database.execute("SELECT sha256 FROM blobs").fetchall() == [(kept.sha256,)]


async def test_two_processes_keep_the_same_content_at_the_same_time(world: World):
    async with world.open() as one, world.open() as two:
        numbers = [await new(one, f"n{number}", run=str(number)) for number in range(8)]
        turns = [(one, two)[number % 2] for number in range(8)]
        await asyncio.gather(
            *(parts.uploads.put_whole(number, body(b"same")) for parts, number in zip(turns, numbers, strict=True)),
            *(swept(parts) for parts in turns),
        )
        assert world.contents() == {hashlib.sha256(b"same").hexdigest()}
