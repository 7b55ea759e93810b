"""Archives of hostile clients, and ours."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from firebrick.node.errors import StepError
from firebrick.node.results.archive import Member, pack, read_members, unpack


def archive(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_files_come_out_as_they_went_in(tmp_path: Path):
    files = {"a/b/c.txt": b"text" * 1000, "empty": b"", "é ü": b"name"}
    made = archive(tmp_path / "a.zip", files | {"folder/": b""}, compression=zipfile.ZIP_DEFLATED)
    members = read_members(made)
    assert members == [Member("a/b/c.txt", 4000), Member("empty", 0), Member("é ü", 4)]
    (tmp_path / "out").mkdir()
    found = unpack(made, tmp_path / "out", members)
    assert [(each.path, each.size) for each in found] == [("a/b/c.txt", 4000), ("empty", 0), ("é ü", 4)]
    assert read(tmp_path / "out") == files


def test_what_is_packed_is_unpacked_the_same_and_links_are_left_out(tmp_path: Path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_bytes(b"x" * 5000)
    (source / "top").write_bytes(b"")
    (source / "link").symlink_to("/etc/passwd")
    out = io.BytesIO()
    pack(source, out)
    (tmp_path / "a.zip").write_bytes(out.getvalue())
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.zip", tmp_path / "out", read_members(tmp_path / "a.zip"))
    assert read(tmp_path / "out") == {"deep/file": b"x" * 5000, "top": b""}


@pytest.mark.parametrize(
    "name", ["../up", "a/../../up", "/root", "a//b", "./a", "a/" * 2100 + "a", "a/" * 200 + "a", "x" * 256]
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str):
    with pytest.raises(StepError, match="path"):
        read_members(archive(tmp_path / "a.zip", {name: b"x"}))


def test_one_path_twice_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a", b"2")
    with pytest.raises(StepError, match="two files"):
        read_members(tmp_path / "a.zip")


def test_a_file_where_a_directory_is_is_refused(tmp_path: Path):
    made = archive(tmp_path / "a.zip", {"a": b"1", "a/b": b"2"})
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match="directory"):
        unpack(made, tmp_path / "out", read_members(made))


@pytest.mark.parametrize("data", [b"", b"x", b"PK\5\6", b"not a zip" * 1000, b"PK\5\6" + b"\0" * 18 + b"x" * 70_000])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, data: bytes):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(StepError, match="no zip archive"):
        read_members(tmp_path / "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_that_takes_any_amount_of_memory_is_refused(tmp_path: Path, method: int):
    made = archive(tmp_path / "a.zip", {"a": b"x"}, compression=method)
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match="compression method"):
        unpack(made, tmp_path / "out", read_members(made))


def test_a_broken_content_is_found_while_it_is_unpacked(tmp_path: Path):
    made = archive(tmp_path / "a.zip", {"a": b"hello"})
    made.write_bytes(made.read_bytes().replace(b"hello", b"hullo"))
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match="no zip archive that can be read"):
        unpack(made, tmp_path / "out", read_members(made))


def test_more_than_it_says_is_not_unpacked(tmp_path: Path):
    made = archive(tmp_path / "a.zip", {"a": b"0" * (4 << 20)}, compression=zipfile.ZIP_DEFLATED)
    size = struct.pack("<L", 4 << 20)
    made.write_bytes(made.read_bytes().replace(size, struct.pack("<L", 10)))
    [member] = read_members(made)
    assert member.size == 10
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError):
        unpack(made, tmp_path / "out", [member])
    assert sum(len(data) for data in read(tmp_path / "out").values()) <= 10


@pytest.mark.parametrize("size", [9 << 20, 0xFFFFFFFE])
def test_a_table_too_large_to_look_into_is_not_read(tmp_path: Path, size: int):
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0)
    (tmp_path / "a.zip").write_bytes(b"\0" * 100 + end)
    with pytest.raises(StepError, match="larger than 8 MiB"):
        read_members(tmp_path / "a.zip")


def test_nor_one_whose_size_is_in_the_wide_record(tmp_path: Path):
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 100, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFFF, 0, 0)
    (tmp_path / "a.zip").write_bytes(b"\0" * 100 + wide + locator + end)
    with pytest.raises(StepError, match="larger than 8 MiB"):
        read_members(tmp_path / "a.zip")


def test_a_file_without_a_name_is_refused(tmp_path: Path):
    made = archive(tmp_path / "a.zip", {"name": b"x"})
    made.write_bytes(made.read_bytes().replace(b"name", b"\0ame"))
    with pytest.raises(StepError, match="no zip archive"):
        read_members(made)
