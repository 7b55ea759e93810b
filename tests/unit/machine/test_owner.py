"""Directories of machines know whose they are."""

import os

import msgspec
import pytest

from firebrick.machine import owner


def test_a_directory_is_claimed_and_gone_after(tmp_path):
    with owner.claimed(tmp_path / "machines" / "abc", "abc") as directory:
        mine = owner.read(directory)
        assert mine.machine == "abc"
        assert mine.pid == os.getpid()
        assert mine.alive
        assert directory.stat().st_mode & 0o077 == 0
        (directory / "more").mkdir()
    assert list((tmp_path / "machines").iterdir()) == []


def test_what_is_there_is_not_taken(tmp_path):
    with (
        owner.claimed(tmp_path / "abc", "abc"),
        pytest.raises(OSError, match="not empty"),
        owner.claimed(tmp_path / "abc", "abc"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"started": 1}, {"boot": "another"}])
def test_an_owner_is_dead_when_the_process_is_another(change):
    assert not msgspec.structs.replace(owner.Owner.me("m"), **change).alive


def test_the_dead_are_reaped_and_the_living_left_alone(tmp_path):
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / owner.FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(owner.Owner.me("dead"), started=1)))
    strange = tmp_path / "strange"
    strange.mkdir()
    with owner.claimed(tmp_path / "mine", "mine") as mine:
        assert owner.reap(tmp_path) == ["dead"]
        assert not dead.exists()
        assert strange.exists()
        assert mine.exists()


def test_reaping_nothing_is_no_error(tmp_path):
    assert owner.reap(tmp_path / "none") == []


def test_a_draft_whose_maker_died_is_removed(tmp_path):
    mine, dead, strange = (tmp_path / name for name in (owner.draft_name("a"), f".b.{os.getpid()}-1.12345678", ".c"))
    for path in (mine, dead, strange):
        path.mkdir()
    assert owner.reap(tmp_path) == []
    assert [path.exists() for path in (mine, dead, strange)] == [True, False, True]
