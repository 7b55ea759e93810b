"""Local trees as streams: what is sent, what is left out, and that nothing is followed or gathered."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path, PurePath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firebrick.guest.errors import TreeError
from firebrick.guest.tree import Record, TreeLimits
from firebrick.guest.tree_parser import TreeParser
from firebrick.guest.tree_source import TreeSource
from firebrick.guest.tree_target import TreeTarget


class Names:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.data_bytes = 0

    def entry(self, record: Record, path: list[bytes]) -> None:
        self.found[os.fsdecode(record.path)] = record.kind

    def data(self, at: int, piece: memoryview) -> None:
        self.data_bytes += len(piece)

    def end_file(self) -> None:
        pass


def sent(source: TreeSource) -> Names:
    names = Names()
    parser = TreeParser(names, TreeLimits())
    for block in source.blocks():
        parser.feed(block)
    assert parser.finish() == source.count
    return names


def copy(source: Path, target: Path) -> None:
    with TreeTarget(target, limits=TreeLimits()) as tree:
        for block in TreeSource(source).blocks():
            tree.feed(block)
        tree.finish()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/deep").write_bytes(b"deep")
    (root / "a/x.o").write_bytes(b"object")
    (root / "top").write_bytes(b"top")
    (root / "out").symlink_to("/etc/passwd")
    (root / "dir").symlink_to("a")
    os.link(root / "top", root / "zwin")
    os.mkfifo(root / "fifo")
    return root


def test_everything_is_sent_and_nothing_followed(tree: Path) -> None:
    assert sent(TreeSource(tree)).found == {
        "": "directory",
        "a": "directory",
        "a/b": "directory",
        "a/b/deep": "file",
        "a/x.o": "file",
        "dir": "symlink",
        "out": "symlink",
        "top": "file",
        "zwin": "hardlink",
    }


def test_only_what_is_asked_for_and_what_leads_there(tree: Path) -> None:
    assert set(sent(TreeSource(tree, only=[PurePath("a/b/deep"), PurePath("top")])).found) == {
        "",
        "a",
        "a/b",
        "a/b/deep",
        "top",
    }
    assert set(sent(TreeSource(tree, only=[PurePath("a")])).found) == {"", "a", "a/b", "a/b/deep", "a/x.o"}
    assert set(sent(TreeSource(tree, only=[])).found) == {""}
    assert set(sent(TreeSource(tree, only=[PurePath("gone")])).found) == {""}


def test_what_matches_is_left_out_with_all_below(tree: Path) -> None:
    found = sent(TreeSource(tree, exclude=["b", "*.o", "/out"])).found
    assert set(found) == {"", "a", "dir", "top", "zwin"}


def test_a_round_trip_keeps_everything(tree: Path, tmp_path: Path) -> None:
    (tree / "a/x.o").chmod(0o640)
    os.utime(tree / "a", ns=(5, 1_234_567_890_123_456_789))
    copy(tree, tmp_path / "copy")
    again = tmp_path / "copy"
    assert (again / "a/x.o").stat().st_mode == (tree / "a/x.o").stat().st_mode
    assert (again / "a").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (again / "out").readlink() == Path("/etc/passwd")
    assert (again / "zwin").samefile(again / "top")
    assert not (again / "fifo").exists()


def test_names_are_bytes(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / os.fsdecode(b"\xff\n")).write_text("x")
    copy(tmp_path / "t", tmp_path / "u")
    assert os.listdir(os.fsencode(tmp_path / "u")) == [b"\xff\n"]


def test_holes_are_not_sent_and_not_gathered(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with (tmp_path / "t/sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(700 << 20)
        file.write(b"data")
    names = sent(TreeSource(tmp_path / "t"))
    assert names.data_bytes < 1 << 20
    copy(tmp_path / "t", tmp_path / "u")
    found = tmp_path / "u/sparse"
    assert found.stat().st_size == 1 << 30
    assert found.stat().st_blocks * 512 < 1 << 20
    with found.open("rb") as file:
        file.seek(700 << 20)
        assert file.read(5) == b"data\0"


def test_a_large_file_is_never_held(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/large").write_bytes(os.urandom(1 << 20) * 48)
    tracemalloc.start()
    try:
        copy(tmp_path / "t", tmp_path / "u")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert (tmp_path / "u/large").stat().st_size == 48 << 20


def test_a_file_that_shrinks_meanwhile_ends_in_a_hole(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    file = tmp_path / "t/f"
    file.write_bytes(b"x" * (3 << 20))
    with TreeTarget(tmp_path / "u", limits=TreeLimits()) as target:
        for i, block in enumerate(TreeSource(tmp_path / "t").blocks()):
            if i == 0:
                os.truncate(file, 1 << 20)
            target.feed(block)
        target.finish()
    assert (tmp_path / "u/f").stat().st_size == 3 << 20
    assert (tmp_path / "u/f").read_bytes().rstrip(b"\0") == b"x" * (1 << 20)


def test_a_generator_that_is_closed_leaves_no_open_files(tree: Path) -> None:
    (tree / "a/b/deep").write_bytes(bytes(1 << 20))
    before = len(os.listdir("/proc/self/fd"))
    blocks = TreeSource(tree).blocks()
    next(blocks)
    blocks.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_source_that_is_no_directory_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="cannot read the tree"):
        sent(TreeSource(tmp_path / "missing"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(TreeError, match="cannot read the tree"):
        sent(TreeSource(tmp_path / "file"))


STRETCHES = st.lists(st.tuples(st.integers(0, 4 << 20), st.binary(min_size=1, max_size=5000)), max_size=6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stretches=STRETCHES, size=st.integers(0, 5 << 20))
def test_any_sparse_file_arrives_as_it_is(tmp_path: Path, stretches: list[tuple[int, bytes]], size: int) -> None:
    root = tmp_path / "t"
    root.mkdir(exist_ok=True)
    with (root / "f").open("wb") as file:
        for at, data in stretches:
            file.seek(at)
            file.write(data)
        file.truncate(size)
    copy(root, tmp_path / "u")
    assert (tmp_path / "u/f").read_bytes() == (root / "f").read_bytes()
