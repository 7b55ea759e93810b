"""The store below: nothing half-made is ever seen, and what a dead process left goes away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from firebrick.image.errors import DamagedError
from firebrick.image.shelf import Shelf
from firebrick.lock import hold_lock, try_lock


class Thing(msgspec.Struct, frozen=True):
    word: str


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf[Thing]:
    return Shelf(tmp_path / "shelf", Thing)


async def put(shelf: Shelf[Thing], name: str, digest: str, word: str = "w") -> None:
    async with shelf.staged() as staging:
        (staging / "file").write_text(word)
        shelf.publish(staging, digest, Thing(word))
    shelf.point(name, digest)


async def test_what_is_published_is_found_by_name_and_digest(shelf: Shelf[Thing]):
    await put(shelf, "a", "d1")
    await put(shelf, "b", "d1")
    await put(shelf, "c", "d2")
    assert shelf.names() == {"a": "d1", "b": "d1", "c": "d2"}
    assert shelf.digests() == ["d1", "d2"]
    assert shelf.find("a") == "d1"
    assert shelf.manifest("d2") == Thing("w")
    assert json.loads((shelf.object("d1") / "manifest.json").read_text()) == {"word": "w"}
    assert (shelf.object("d1") / "file").stat().st_mode & 0o777 == 0o444


async def test_an_empty_shelf_has_nothing(shelf: Shelf[Thing]):
    assert shelf.find("a") is None
    assert shelf.names() == {}
    assert shelf.digests() == []
    assert await shelf.sweep() == 0


async def test_a_name_moves_from_one_object_to_another(shelf: Shelf[Thing]):
    await put(shelf, "a", "d1")
    await put(shelf, "a", "d2")
    assert shelf.names() == {"a": "d2"}
    assert sorted(path.name for path in (shelf.root / "names").iterdir()) == ["a"]


async def test_publishing_the_same_content_again_keeps_it_and_takes_the_new_manifest(shelf: Shelf[Thing]):
    await put(shelf, "a", "d1", "old")
    await put(shelf, "a", "d1", "new")
    assert shelf.manifest("d1") == Thing("new")
    assert (shelf.object("d1") / "file").read_text() == "old"
    assert list((shelf.root / "staging").iterdir()) == []


async def test_a_failed_or_cancelled_build_leaves_nothing(shelf: Shelf[Thing]):
    async def build(entered: asyncio.Event) -> None:
        async with shelf.staged() as staging:
            (staging / "deep").mkdir()
            (staging / "deep" / "file").write_text("x")
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    task = asyncio.create_task(build(entered))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ZeroDivisionError):
        async with shelf.staged():
            raise ZeroDivisionError
    assert list((shelf.root / "staging").iterdir()) == []
    assert shelf.digests() == []


async def test_a_sweep_takes_what_the_dead_left_and_not_what_the_living_make(shelf: Shelf[Thing]):
    dead = shelf.root / "staging" / "dead"
    dead.mkdir(parents=True)
    (dead / "file").write_text("x")
    dead.with_name("dead.lock").touch()
    async with shelf.staged() as staging:
        assert not dead.exists()
        assert await shelf.sweep() == 0
        assert staging.is_dir()


async def test_a_name_of_a_removed_object_means_nothing(shelf: Shelf[Thing]):
    await put(shelf, "a", "d1")
    shelf.remove("d1")
    shelf.remove("d1")
    assert shelf.find("a") is None
    assert not shelf.object("d1").exists()


async def test_a_damaged_manifest_says_so(shelf: Shelf[Thing]):
    await put(shelf, "a", "d1")
    manifest = shelf.object("d1") / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text('{"wor')
    with pytest.raises(DamagedError, match="cannot read"):
        shelf.manifest("d1")


async def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path):
    inside = 0
    waited: list[int] = []

    async def visit(number: int) -> None:
        nonlocal inside
        async with hold_lock(tmp_path / "x.lock", waiting=lambda: waited.append(number)):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(visit(number))
    assert waited == sorted(waited)
    assert len(waited) >= 1


async def test_a_lock_whose_file_goes_is_held_by_one_at_a_time_still(tmp_path: Path):
    inside = rounds = 0

    async def visit() -> None:
        nonlocal inside, rounds
        async with hold_lock(tmp_path / "x.lock"):
            inside, rounds = inside + 1, rounds + 1
            assert inside == 1
            await asyncio.sleep(0.01)
            inside -= 1
            (tmp_path / "x.lock").unlink()

    files = len(list(Path("/proc/self/fd").iterdir()))
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(visit())
            await asyncio.sleep(0.002)
    assert rounds == 5
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == files


async def test_waiting_for_a_lock_can_be_cancelled(tmp_path: Path):
    with try_lock(tmp_path / "x.lock") as free:
        assert free
        waiting = asyncio.Event()

        async def wait() -> None:
            async with hold_lock(tmp_path / "x.lock", waiting=waiting.set):
                raise AssertionError("held by two")

        task = asyncio.create_task(wait())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with try_lock(tmp_path / "x.lock") as free:
        assert free
