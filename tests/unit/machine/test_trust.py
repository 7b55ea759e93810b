"""Each file of a snapshot is read through once on a host, and again when it is another."""

import os
import shutil
from pathlib import Path

import pytest

from firebrick.machine import MachineSpec, Snapshot, SnapshotError, digest, trust
from firebrick.machine import snapshot as snapshots


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def take(path: Path, *, cache: Path | None = None, base: Snapshot | None = None) -> Snapshot:
    with snapshots.drafted(path) as draft:
        (draft.path / "state").write_bytes(b"devices")
        with (draft.path / "memory").open("wb") as file:
            file.truncate(8 << 20)
            file.seek(1 << 20)
            file.write(b"m" * 4096)
        draft.keep(MachineSpec(kernel=Path("/k"), initrd=Path("/i")), "qemu", {}, cache=cache, base=base)
    return Snapshot.load(path)


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that were read through."""
    names = []
    real = digest.of_file
    monkeypatch.setattr(digest, "of_file", lambda path: names.append(path.name) or real(path))
    return names


def tamper(file: Path) -> None:
    facts = file.stat()
    with file.open("r+b") as opened:
        opened.seek(1 << 20)
        opened.write(b"M")
    assert file.stat().st_size == facts.st_size


def test_a_snapshot_is_read_through_once(tmp_path, cache, read):
    taken = take(tmp_path / "s")
    read.clear()
    for _ in range(3):
        trust.verify(taken, cache)
    assert sorted(read) == ["memory", "state"]


def test_who_took_it_need_not_read_it(tmp_path, cache, read):
    taken = take(tmp_path / "s", cache=cache)
    read.clear()
    trust.verify(taken, cache)
    assert read == []


def test_another_name_for_a_file_changes_nothing(tmp_path, cache, read):
    taken = take(tmp_path / "s", cache=cache)
    os.link(taken.path / "memory", tmp_path / "mine")
    (tmp_path / "mine").unlink()
    read.clear()
    trust.verify(taken, cache)
    assert read == []


@pytest.mark.parametrize("known", [True, False])
def test_a_memory_that_was_changed_is_refused_by_its_name(tmp_path, cache, known):
    taken = take(tmp_path / "s", cache=cache if known else None)
    tamper(taken.path / "memory")
    for _ in range(2):  # and is not taken for verified after
        with pytest.raises(SnapshotError, match=rf"{taken.path / 'memory'} is not what was saved") as caught:
            trust.verify(Snapshot.load(taken.path), cache)
        assert caught.value.hint


def test_another_file_of_the_same_contents_is_read_and_taken(tmp_path, cache, read):
    taken = take(tmp_path / "s", cache=cache)
    shutil.copy2(taken.path / "memory", tmp_path / "copy")
    (tmp_path / "copy").replace(taken.path / "memory")
    read.clear()
    trust.verify(taken, cache)
    assert "memory" in read


def test_a_record_that_names_no_digests_is_not_trusted(tmp_path, cache):
    with snapshots.drafted(tmp_path / "s") as draft:
        (draft.path / "memory").write_bytes(b"x")
        draft.keep(MachineSpec(kernel=Path("/k"), initrd=Path("/i")), "qemu", {}, digested=False)
    with pytest.raises(SnapshotError, match="memory is not what was saved"):
        trust.verify(Snapshot.load(tmp_path / "s"), cache)


def test_another_record_for_the_same_files_is_verified_anew(tmp_path, cache, read):
    taken = take(tmp_path / "s", cache=cache)
    file = taken.path / snapshots.FILE
    file.write_bytes(file.read_bytes() + b"\n")
    read.clear()
    trust.verify(Snapshot.load(taken.path), cache)
    assert sorted(read) == ["memory", "state"]


def test_a_damaged_note_is_no_note(tmp_path, cache, read):
    taken = take(tmp_path / "s", cache=cache)
    [note] = (cache / "verified").iterdir()
    note.write_bytes(b"{")
    read.clear()
    trust.verify(taken, cache)
    assert sorted(read) == ["memory", "state"]


def test_notes_of_snapshots_that_are_gone_are_forgotten(tmp_path, cache):
    for number in range(5):
        taken = take(tmp_path / str(number), cache=cache)
        taken.remove()
    take(tmp_path / "last", cache=cache)
    assert len(list((cache / "verified").iterdir())) == 1


def test_all_links_of_a_chain_are_verified(tmp_path, cache):
    first = take(tmp_path / "1")
    second = take(tmp_path / "2", base=first)
    third = take(tmp_path / "3", base=second)
    trust.verify(third, cache)
    tamper(first.path / "memory")
    with pytest.raises(SnapshotError, match=rf"{first.path / 'memory'} is not what was saved"):
        trust.verify(third, cache)
