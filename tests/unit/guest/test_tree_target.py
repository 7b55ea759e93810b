"""Trees of hostile guests: nothing is written outside the target, held in memory, or taken over that would be a danger."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firebrick.guest import message
from firebrick.guest.errors import TreeError
from firebrick.guest.tree import END, EXTENT, LENGTH, Record, TreeCount, TreeLimits
from firebrick.guest.tree_target import TreeTarget


def record(path: bytes, kind: str = "file", **fields: object) -> bytes:
    known = {"mode": 0o644, "mtime_ns": 1_700_000_000_000_000_000, "uid": 0, "gid": 0} | fields
    if kind == "file":
        known.setdefault("size", 0)
    packed = message.pack(Record(path=path, kind=kind, **known))  # type: ignore[arg-type]
    return LENGTH.pack(len(packed)) + packed


def extent(at: int, data: bytes = b"") -> bytes:
    return EXTENT.pack(at, len(data)) + data


def file(path: bytes, content: bytes = b"", **fields: object) -> bytes:
    body = extent(0, content) if content else b""
    return record(path, size=len(content), **fields) + body + extent(len(content))


ROOT = record(b"", "directory", mode=0o755)


def receive(target: Path, *parts: bytes, limits: TreeLimits | None = None, step: int = 0) -> TreeCount:
    data = b"".join(parts)
    with TreeTarget(target, limits=limits or TreeLimits()) as tree:
        for at in range(0, len(data), step or len(data)):
            tree.feed(data[at : at + (step or len(data))])
        return tree.finish()


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A target with a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    return tmp_path / "target"


def untouched(inside: Path) -> bool:
    beside = inside.parent
    return (beside / "secret").read_text() == "secret" and not [*(beside / "outside").iterdir()]


@pytest.mark.parametrize("step", [0, 1, 7])
def test_a_tree_is_written_as_it_was_sent(inside: Path, step: int) -> None:
    count = receive(
        inside,
        ROOT,
        record(b"d", "directory", mode=0o700),
        file(b"d/f", b"content", mode=0o751),
        record(b"d/l", "symlink", target=b"../nowhere"),
        record(b"d/h", "hardlink", target=b"d/f"),
        file(b"empty"),
        END,
        step=step,
    )
    assert count == TreeCount(entries=6, bytes=7)
    assert (inside / "d/f").read_bytes() == b"content"
    assert stat.S_IMODE((inside / "d/f").stat().st_mode) == 0o751
    assert (inside / "d/f").stat().st_mtime_ns == 1_700_000_000_000_000_000
    assert (inside / "d").stat().st_mtime_ns == 1_700_000_000_000_000_000
    assert (inside / "d/l").readlink() == Path("../nowhere")
    assert (inside / "d/h").samefile(inside / "d/f")
    assert (inside / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    "path",
    [
        b"../secret",
        b"a/../../secret",
        b"/etc/x",
        b"a//b",
        b"./a",
        b"a/.",
        b"a/..",
        b"..",
        b"a\0b",
        b"x" * 256,
        b"a/" * 300 + b"a",
    ],
)
@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "hardlink"])
def test_paths_that_lead_elsewhere_are_refused(inside: Path, path: bytes, kind: str) -> None:
    wrong = record(path, kind, target=b"a" if kind.endswith("link") else None)
    with pytest.raises(TreeError):
        receive(inside, ROOT, record(b"a", "directory"), wrong, END)
    assert untouched(inside)


@pytest.mark.parametrize(
    "what", [file(b"l/x", b"evil"), record(b"l/x", "directory"), record(b"l/x", "symlink", target=b"y")]
)
@pytest.mark.parametrize("target", [b"../outside", b"."])
def test_links_on_the_way_are_not_followed(inside: Path, what: bytes, target: bytes) -> None:
    with pytest.raises(TreeError):
        receive(inside, ROOT, record(b"l", "symlink", target=target), what, END)
    assert untouched(inside)


def test_a_link_that_is_already_there_is_replaced_not_followed(inside: Path) -> None:
    inside.mkdir()
    (inside / "f").symlink_to(inside.parent / "secret")
    receive(inside, ROOT, file(b"f", b"mine"), END)
    assert untouched(inside)
    assert not (inside / "f").is_symlink()
    assert (inside / "f").read_bytes() == b"mine"


def test_a_link_to_a_directory_that_is_already_there_is_not_entered(inside: Path) -> None:
    inside.mkdir()
    (inside / "d").symlink_to(inside.parent / "outside")
    with pytest.raises(TreeError):
        receive(inside, ROOT, record(b"d", "directory"), file(b"d/x", b"evil"), END)
    assert untouched(inside)


@pytest.mark.parametrize("target", [b"../secret", b"/etc/passwd", b"", b"d/../../secret", b"l/secret", b"h"])
def test_hard_links_reach_only_what_is_inside(inside: Path, target: bytes) -> None:
    with pytest.raises(TreeError):
        receive(inside, ROOT, record(b"l", "symlink", target=b".."), record(b"h", "hardlink", target=target), END)
    assert untouched(inside)


def test_a_hard_link_to_a_link_does_not_write_through_it(inside: Path) -> None:
    receive(
        inside,
        ROOT,
        record(b"l", "symlink", target=b"../secret"),
        record(b"h", "hardlink", target=b"l"),
        file(b"h", b"evil"),
        END,
    )
    assert untouched(inside)


def test_a_file_sent_twice_is_made_anew(inside: Path) -> None:
    """Not written through: the first may have a second name by then."""
    receive(inside, ROOT, file(b"f", b"first"), record(b"h", "hardlink", target=b"f"), file(b"f", b"second"), END)
    assert (inside / "f").read_bytes() == b"second"
    assert (inside / "h").read_bytes() == b"first"


def test_a_directory_sent_twice_stays(inside: Path) -> None:
    receive(
        inside,
        ROOT,
        record(b"d", "directory"),
        file(b"d/f", b"1"),
        file(b"g"),
        record(b"d", "directory"),
        file(b"d/g", b"2"),
        END,
    )
    assert sorted(p.name for p in (inside / "d").iterdir()) == ["f", "g"]


def test_nothing_takes_the_place_of_a_directory(inside: Path) -> None:
    for other in (file(b"d"), record(b"d", "symlink", target=b".."), record(b"d", "hardlink", target=b"f")):
        with pytest.raises(TreeError):
            receive(inside, ROOT, file(b"f"), record(b"d", "directory"), other, END)


def test_a_pipe_in_the_way_is_replaced_not_opened(inside: Path) -> None:
    inside.mkdir()
    os.mkfifo(inside / "f")
    receive(inside, ROOT, file(b"f", b"x"), END)
    assert (inside / "f").read_bytes() == b"x"


def test_set_id_bits_are_not_taken_over(inside: Path) -> None:
    receive(inside, ROOT, record(b"d", "directory", mode=0o7000), file(b"d/f", mode=0o6755), END)
    assert stat.S_IMODE((inside / "d/f").stat().st_mode) == 0o755
    assert stat.S_IMODE((inside / "d").stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_a_link_is_no_root(inside: Path, kind: str) -> None:
    with pytest.raises(TreeError):
        receive(inside, record(b"", kind, target=b"../outside"), END)
    assert untouched(inside)


def test_a_root_in_the_middle_is_refused(inside: Path) -> None:
    with pytest.raises(TreeError):
        receive(inside, ROOT, file(b"a"), record(b"", "directory", mode=0o777), END)


def test_nothing_is_below_a_root_that_is_a_file(inside: Path) -> None:
    with pytest.raises(TreeError):
        receive(inside, file(b"", b"x"), file(b"a"), END)


def test_a_single_file_becomes_the_target(inside: Path) -> None:
    assert receive(inside, file(b"", b"content"), END) == TreeCount(1, 7)
    assert inside.read_bytes() == b"content"


def test_a_target_that_was_there_keeps_its_mode(inside: Path) -> None:
    inside.mkdir(mode=0o700)
    receive(inside, record(b"", "directory", mode=0o777), END)
    assert stat.S_IMODE(inside.stat().st_mode) == 0o700


def raw(**fields: object) -> bytes:
    """A record no correct sender makes."""
    known = {"path": b"f", "kind": "file", "mode": 0o644, "mtime_ns": 0, "uid": 0, "gid": 0, "size": 0, "target": None}
    packed = msgspec.msgpack.encode(known | fields)
    return LENGTH.pack(len(packed)) + packed


def test_the_raw_record_of_the_next_test_is_right_but_for_its_fault(inside: Path) -> None:
    assert receive(inside, ROOT, raw(), extent(0), END) == TreeCount(2, 0)


WRONG = {
    "size_missing": record(b"f", size=None) + extent(0),
    "size_negative": raw(size=-1) + extent(0),
    "size_enormous": record(b"f", size=(1 << 63) - 1) + extent((1 << 63) - 1),
    "size_over_limit": record(b"f", size=(1 << 40) + 1) + extent((1 << 40) + 1),
    "extent_too_long": record(b"f", size=1 << 30) + EXTENT.pack(0, (1 << 20) + 1),
    "extent_past_end": record(b"f", size=4) + extent(1, b"1234"),
    "extent_offset_overflows": record(b"f", size=4) + extent((1 << 64) - 1, b"1"),
    "extents_overlap": record(b"f", size=8) + extent(0, b"1234") + extent(3, b"5678") + extent(8),
    "extents_backwards": record(b"f", size=8) + extent(4, b"1234") + extent(0, b"5678") + extent(8),
    "end_elsewhere": record(b"f", size=8) + extent(4),
    "kind_unknown": raw(kind="device"),
    "mode_too_large": raw(mode=0o100644) + extent(0),
    "path_is_text": raw(path="f") + extent(0),
    "time_out_of_range": raw(mtime_ns=1 << 63) + extent(0),
    "link_without_target": record(b"f", "symlink", target=None),
    "link_with_empty_target": record(b"f", "symlink", target=b""),
    "link_with_zero_byte": record(b"f", "symlink", target=b"a\0b"),
    "link_too_long": record(b"f", "symlink", target=b"x" * 5000),
    "record_too_long": LENGTH.pack(65537),
    "record_is_garbage": LENGTH.pack(4) + b"\xc1\xc1\xc1\xc1",
    "record_is_deep": LENGTH.pack(60000) + b"\x91" * 60000,
    "parent_missing": file(b"no/such/directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_trees_are_refused(inside: Path, name: str) -> None:
    with pytest.raises(TreeError):
        receive(inside, ROOT, WRONG[name], END)
    assert untouched(inside)


def test_a_tree_that_ends_early_or_late_is_refused(inside: Path) -> None:
    with pytest.raises(TreeError, match="middle"):
        receive(inside, ROOT, file(b"a"))
    with pytest.raises(TreeError, match="after its end"):
        receive(inside, ROOT, END, b"x")
    with pytest.raises(TreeError, match="after its end"):
        receive(inside, ROOT, END, ROOT, step=len(ROOT) + len(END))


def test_limits_hold(inside: Path) -> None:
    many = [file(b"%d" % i) for i in range(11)]
    with pytest.raises(TreeError, match="entries"):
        receive(inside, ROOT, *many, END, limits=TreeLimits(entries=10))
    with pytest.raises(TreeError, match="bytes"):
        receive(inside, ROOT, file(b"big", bytes(1001)), END, limits=TreeLimits(bytes=1000))
    with pytest.raises(TreeError, match="allowed"):
        receive(inside, ROOT, record(b"f", size=2000), extent(2000), END, limits=TreeLimits(file_bytes=1000))


def test_a_depth_that_fits_leaves_no_open_files(inside: Path) -> None:
    path, parts = b"", [ROOT]
    for _ in range(200):
        path = path + b"/d" if path else b"d"
        parts.append(record(path, "directory"))
    before = len(os.listdir("/proc/self/fd"))
    receive(inside, *parts, file(path + b"/f", b"deep"), END)
    with pytest.raises(TreeError):
        receive(inside, *parts, b"\xff\xff\xff\xff")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_gigabyte_of_holes_costs_neither_memory_nor_disk(inside: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 1 << 30
    receive(inside, ROOT, record(b"f", size=size), extent(0, b"head"), extent(size - 4, b"tail"), extent(size), END)
    found = (inside / "f").stat()
    assert found.st_size == size
    assert found.st_blocks * 512 < 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=100), max_size=6))
def test_garbage_is_refused(tmp_path: Path, garbage: list[bytes]) -> None:
    with TreeTarget(tmp_path / "t", limits=TreeLimits()) as target:
        try:
            for piece in garbage:
                target.feed(piece)
            target.finish()
        except TreeError:
            pass
    assert {p.name for p in tmp_path.iterdir()} <= {"t"}
