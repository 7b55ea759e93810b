"""Directories of machines know whose they are."""

import os

import msgspec
import pytest

from firebrick import tree
from firebrick.machine import drafts, owner
from firebrick.machine.drafts import draft_name


def test_a_directory_is_claimed_and_gone_after(tmp_path):
    with owner.claimed(tmp_path / "machines" / "abc", "abc") as directory:
        mine = owner.read(directory)
        assert mine.machine == "abc"
        assert mine.pid == os.getpid()
        assert mine.alive
        assert directory.stat().st_mode & 0o077 == 0
        assert (directory / owner.FILE).stat().st_mode & 0o077 == 0
        (directory / "more").mkdir()
    assert list((tmp_path / "machines").iterdir()) == []


@pytest.fixture
def deep(tmp_path):
    """A directory that nothing deep is left in: what removes old ones after a failure could not."""
    yield tmp_path
    tree.remove(tmp_path)
    tmp_path.mkdir()


def dig(directory, levels: int) -> None:
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_a_directory_goes_however_deep_a_vmm_has_dug_in_it(deep):
    outside = deep / "outside"
    outside.mkdir()
    (outside / "file").touch()
    with owner.claimed(deep / "machines" / "abc", "abc") as directory:
        dig(directory, 2500)
        (directory / "link").symlink_to(outside)
    dead = deep / "machines" / "dead"
    dead.mkdir()
    (dead / owner.FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(owner.Owner.me("dead"), started=1)))
    dig(dead, 2500)
    assert owner.reap(deep / "machines") == ["dead"]
    assert list((deep / "machines").iterdir()) == []
    assert list(outside.iterdir()) == [outside / "file"]


def test_what_was_killed_while_it_removed_a_directory_is_reaped(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda path, **_: (path / owner.FILE).unlink())
        killed.setattr("firebrick.tree.remove", lambda path: (path / owner.FILE).unlink(missing_ok=True))
        with owner.claimed(tmp_path / "abc", "abc") as directory:
            (directory / "more").mkdir()
    assert list(tmp_path.iterdir()) != []
    monkeypatch.setattr(drafts, "start_of", lambda _: None)
    owner.reap(tmp_path)
    assert list(tmp_path.iterdir()) == []


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
    mine, dead, strange = (tmp_path / name for name in (draft_name("a"), f".b.{os.getpid()}-1.12345678", ".c"))
    for path in (mine, dead, strange):
        path.mkdir()
    assert owner.reap(tmp_path) == []
    assert [path.exists() for path in (mine, dead, strange)] == [True, False, True]
