"""Differences: what they say, how they become one memory, and what is said when a link is missing."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.machine import MachineSpec, Snapshot, SnapshotError, chain
from firebrick.machine import snapshot as snapshots
from firebrick.machine.memory import PAGE

PAGES = 64
SPEC = MachineSpec(kernel=Path("/k"), initrd=Path("/i"))

changes = st.dictionaries(st.integers(0, PAGES - 1), st.sampled_from([b"\0", b"a", b"b"]), max_size=12)


def take(path: Path, pages: dict[int, bytes], base: Snapshot | None = None) -> Snapshot:
    with snapshots.drafted(path) as draft:
        (draft.path / "state").write_bytes(path.name.encode())
        with (draft.path / "memory").open("wb") as file:
            file.truncate(PAGES * PAGE)
            for page, byte in pages.items():
                file.seek(page * PAGE)
                file.write(byte * PAGE)
        draft.keep(SPEC, "qemu", {}, base=base)
    return Snapshot.load(path)


@settings(deadline=None)  # a slow disk is no failure
@given(st.lists(changes, min_size=1, max_size=5))
def test_a_chain_is_its_changes_one_after_the_other(tmp_path_factory, links):
    home = tmp_path_factory.mktemp("d")
    expected = bytearray(PAGES * PAGE)
    taken = None
    for number, pages in enumerate(links):
        taken = take(home / str(number), pages, taken)
        for page, byte in pages.items():
            expected[page * PAGE : (page + 1) * PAGE] = byte * PAGE
    assert taken is not None
    assert len(taken.chain) == len(links)
    (home / "whole").mkdir()
    taken.make_whole(home / "whole")
    assert (home / "whole" / "memory").read_bytes() == expected
    assert (home / "whole" / "state").read_bytes() == (taken.path / "state").read_bytes()
    assert not (home / "whole" / "memory.ranges").exists()


def test_what_counts_survives_a_copy_that_fills_holes(tmp_path):
    first = take(tmp_path / "1", {3: b"a", 5: b"b"})
    second = take(tmp_path / "2", {3: b"\0", 9: b"c"}, first)
    filled = (second.path / "memory").read_bytes()
    (second.path / "memory").write_bytes(filled)
    (tmp_path / "whole").mkdir()
    Snapshot.load(second.path).make_whole(tmp_path / "whole")
    memory = (tmp_path / "whole" / "memory").read_bytes()
    assert memory[3 * PAGE : 4 * PAGE] == bytes(PAGE)
    assert memory[5 * PAGE : 6 * PAGE] == b"b" * PAGE
    assert memory[9 * PAGE : 10 * PAGE] == b"c" * PAGE


async def test_flattened_it_needs_no_other(tmp_path):
    first = take(tmp_path / "1", {3: b"a"})
    second = take(tmp_path / "2", {4: b"b"}, first)
    flat = await second.flatten(tmp_path / "flat", home=tmp_path)
    assert flat.base is None
    assert flat.created == second.created
    second.remove()
    first.remove()
    assert Snapshot.load(flat.path).id == flat.id
    assert (flat.path / "memory").read_bytes()[3 * PAGE : 5 * PAGE] == b"a" * PAGE + b"b" * PAGE
    assert (flat.path / "state").read_bytes() == b"2"


async def test_what_was_tampered_with_is_not_flattened(tmp_path):
    first = take(tmp_path / "1", {3: b"a"})
    second = take(tmp_path / "2", {4: b"b"}, first)
    with (first.path / "memory").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(SnapshotError, match="1/memory is not what was saved"):
        await second.flatten(tmp_path / "flat", home=tmp_path)
    assert not (tmp_path / "flat").exists()


def test_a_base_others_need_is_not_removed(tmp_path):
    first = take(tmp_path / "1", {})
    second = take(tmp_path / "2", {}, first)
    with pytest.raises(SnapshotError, match=rf"cannot remove {first.path}: {second.path} is a difference to it") as no:
        first.remove()
    assert "flatten" in no.value.hint
    second.remove()
    first.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_gone_is_named(tmp_path):
    first = take(tmp_path / "1", {})
    second = take(tmp_path / "2", {}, first)
    shutil.rmtree(first.path)
    with pytest.raises(SnapshotError, match=rf"a difference to the snapshot {first.path}, which is gone"):
        Snapshot.load(second.path)


def test_another_snapshot_in_the_place_of_the_base_is_refused(tmp_path):
    first = take(tmp_path / "1", {})
    second = take(tmp_path / "2", {}, first)
    shutil.rmtree(first.path)
    take(first.path, {})
    with pytest.raises(SnapshotError, match="is not the snapshot it is a difference to, but another"):
        Snapshot.load(second.path)


def test_a_chain_that_is_moved_together_holds(tmp_path):
    first = take(tmp_path / "a" / "1", {1: b"a"})
    take(tmp_path / "a" / "2", {}, first)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(Snapshot.load(tmp_path / "b" / "2").chain) == 2


def test_a_chain_has_an_end(tmp_path):
    taken = None
    for number in range(chain.LONGEST):
        taken = take(tmp_path / str(number), {}, taken)
    with pytest.raises(SnapshotError, match=f"more than {chain.LONGEST} snapshots build on each other") as caught:
        take(tmp_path / "last", {}, taken)
    assert "flatten" in caught.value.hint


@pytest.mark.parametrize("raw", [b"x", bytes(16), b"\x01" + bytes(15), b"\xff" * 16])
def test_ranges_that_make_no_sense_are_refused(tmp_path, raw):
    first = take(tmp_path / "1", {})
    second = take(tmp_path / "2", {1: b"a"}, first)
    (second.path / chain.RANGES).write_bytes(raw)
    with pytest.raises(SnapshotError, match=r"memory\.ranges is damaged"):
        chain.read_ranges(second.path)


def test_a_file_system_that_does_not_tell_pages_gets_no_difference(tmp_path, monkeypatch):
    first = take(tmp_path / "1", {})
    monkeypatch.setattr(chain.memory, "data_extents", lambda fd, size: iter([(0, size)]))
    with pytest.raises(SnapshotError, match="does not tell which pages") as caught:
        take(tmp_path / "2", {1: b"a"}, first)
    assert "full snapshot" in caught.value.hint
    assert not (tmp_path / "2").exists()
