"""Trees of guests as archives, and trees that are packed of entries: what goes in comes out, and what is hostile does not."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firebrick.guest.errors import TreeError
from firebrick.guest.tree import END, Record, TreeLimits
from firebrick.guest.tree_archive import TreeArchive
from firebrick.guest.tree_pack import TreeEntry, TreePack
from tests.unit.guest.test_tree_target import ROOT, extent, file, record


def archived(
    target: Path, *parts: bytes, limits: TreeLimits | None = None, step: int = 1 << 16
) -> list[tarfile.TarInfo]:
    data = b"".join(parts)
    with target.open("wb") as out:
        tree = TreeArchive(out.fileno(), limits=limits or TreeLimits())
        for at in range(0, len(data), step):
            tree.feed(data[at : at + step])
        tree.finish()
    with tarfile.open(target) as archive:
        return archive.getmembers()


def content(target: Path, name: str) -> bytes:
    with tarfile.open(target) as archive:
        opened = archive.extractfile(name)
        assert opened is not None
        return opened.read()


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_owners_modes_and_kinds_are_kept(tmp_path: Path, step: int) -> None:
    target = tmp_path / "out.tar"
    long = b"long/" + b"n" * 250
    found = archived(
        target,
        ROOT,
        record(b"long", "directory", mode=0o1777, uid=7, gid=8),
        file(long, b"x" * 700, mode=0o4755, uid=3_000_000_000, gid=12),
        record(b"hard", "hardlink", target=long),
        record(b"soft", "symlink", target=b"../\xff/" + b"t" * 300),
        file(b"\xff\n", b"", mtime_ns=-1),
        END,
        step=step,
    )
    assert [(os.fsencode(one.name), one.type, one.mode) for one in found] == [
        (b"long", tarfile.DIRTYPE, 0o1777),
        (long, tarfile.REGTYPE, 0o4755),
        (b"hard", tarfile.LNKTYPE, 0o644),
        (b"soft", tarfile.SYMTYPE, 0o644),
        (b"\xff\n", tarfile.REGTYPE, 0o644),
    ]
    assert [(one.uid, one.gid) for one in found[:2]] == [(7, 8), (3_000_000_000, 12)]
    assert (os.fsencode(found[2].linkname), os.fsencode(found[3].linkname)) == (long, b"../\xff/" + b"t" * 300)
    assert found[4].mtime == 0
    assert content(target, os.fsdecode(long)) == b"x" * 700


def test_holes_are_zeros(tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    archived(target, ROOT, record(b"f", size=200_000), extent(5, b"a"), extent(100_000, b"b"), extent(200_000), END)
    text = content(target, "f")
    assert (len(text), text.count(b"\0"), text[5:6], text[100_000:100_001]) == (200_000, 199_998, b"a", b"b")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((ROOT, file(b"../x"), END), "not below its root"),
        ((ROOT, file(b"/x"), END), "not below its root"),
        ((ROOT, record(b"x", "hardlink", target=b"../y"), END), "not below its root"),
        ((file(b"", b"x"), END), "is no directory"),
        ((ROOT, record(b"x", size=1 << 50), extent(1 << 50), END), "allowed"),
        ((ROOT, *(file(b"x%d" % n, b"y" * 400) for n in range(3)), END), "more than 1000 bytes"),
        ((ROOT, *(record(b"x%d" % n, size=400) + extent(400) for n in range(3)), END), "holes included"),
        ((ROOT, file(b"x", b"y")), "ends in the middle"),
    ],
)
def test_a_hostile_tree_is_refused(tmp_path: Path, parts: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(TreeError, match=reason):
        archived(tmp_path / "out.tar", *parts, limits=TreeLimits(bytes=1000, file_bytes=1000))


def test_a_reader_that_went_away_is_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        tree = TreeArchive(writing, limits=TreeLimits())
        with pytest.raises(TreeError, match="cannot write the archive"):
            tree.feed(ROOT + file(b"x", b"y"))
    finally:
        os.close(writing)


def entry(path: bytes, text: bytes | None = None) -> TreeEntry:
    kind = "directory" if text is None else "file"
    known = Record(path=path, kind=kind, mode=0o750, mtime_ns=0, uid=5, gid=6, size=None if text is None else len(text))
    return known, () if text is None else [text[at : at + 1000] for at in range(0, len(text), 1000)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda n: not {47, 0} & {*n} and n not in (b".", b"..")),
        st.binary(max_size=5000),
        max_size=5,
    )
)
def test_what_is_packed_comes_out(tmp_path: Path, files: dict[bytes, bytes]) -> None:
    blocks = TreePack([entry(b""), *(entry(name, text) for name, text in files.items())]).blocks()
    target = tmp_path / "packed.tar"
    found = archived(target, *blocks)
    assert {os.fsencode(one.name): content(target, one.name) for one in found} == files
    assert all((one.uid, one.gid, one.mode) == (5, 6, 0o750) for one in found)


def test_a_large_file_comes_in_blocks() -> None:
    blocks = list(TreePack([entry(b""), entry(b"x", b"y" * 3_000_000)]).blocks())
    assert max(map(len, blocks)) < 600_000
    assert sum(map(len, blocks)) > 3_000_000
