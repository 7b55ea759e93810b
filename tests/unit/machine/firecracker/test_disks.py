"""What leaves a room whose VMM does what it likes there."""

from pathlib import Path

import pytest

from firebrick.machine import SnapshotError
from firebrick.machine.firecracker import config, disks
from firebrick.machine.jail.open import OpenRoom


@pytest.fixture
def room(tmp_path: Path) -> OpenRoom:
    (tmp_path / "room").mkdir()
    (tmp_path / "target").mkdir()
    return OpenRoom(tmp_path / "room", [])


def fill(directory: Path) -> Path:
    directory.mkdir()
    for name in (config.STATE, config.MEMORY):
        (directory / name).write_text(f"{name} of {directory.name}")
    return directory


def test_what_was_saved_is_moved_out(room: OpenRoom, tmp_path: Path):
    disks.collect(room, fill(room.root / "save1"), {}, tmp_path / "target")
    assert (tmp_path / "target" / config.MEMORY).read_text() == f"{config.MEMORY} of save1"
    assert not (room.root / "save1").exists()


def test_a_link_in_the_place_of_what_was_saved_leads_to_no_snapshot_of_others(room: OpenRoom, tmp_path: Path):
    others = fill(tmp_path / "others")
    (room.root / "save1").symlink_to(others)
    with pytest.raises(OSError, match="Not a directory|symbolic links"):
        disks.collect(room, room.root / "save1", {}, tmp_path / "target")
    assert sorted(path.name for path in others.iterdir()) == sorted([config.STATE, config.MEMORY])
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("mode", ["r+b", "rb"])
def test_a_file_the_vmm_can_still_write_is_no_part_of_a_snapshot(room: OpenRoom, tmp_path: Path, mode: str):
    saved = fill(room.root / "save1")
    with (saved / config.MEMORY).open(mode):
        if mode == "rb":
            disks.collect(room, saved, {}, tmp_path / "target")
            return
        with pytest.raises(SnapshotError, match="still open for writing"):
            disks.collect(room, saved, {}, tmp_path / "target")
    assert not (tmp_path / "target" / config.MEMORY).exists()
