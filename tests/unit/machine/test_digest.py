"""A digest is that of the contents, however a file system holds them."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.machine import digest

SIZE = 40 * digest.BLOCK + 1234
pieces = st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=9000)), max_size=8)


def write(path: Path, contents: bytes, *, sparse: bool) -> None:
    with path.open("wb") as file:
        file.truncate(len(contents))
        for at in range(0, len(contents), 4096):
            piece = contents[at : at + 4096]
            if not sparse or piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)


def contents_of(written: list[tuple[int, bytes]]) -> bytes:
    contents = bytearray(SIZE)
    for at, data in written:
        contents[at : at + len(data)] = data[: SIZE - at]
    return bytes(contents)


@settings(deadline=None)  # a slow disk is no failure
@given(pieces)
def test_holes_do_not_count(tmp_path_factory, written):
    directory = tmp_path_factory.mktemp("d")
    contents = contents_of(written)
    write(directory / "sparse", contents, sparse=True)
    write(directory / "full", contents, sparse=False)
    assert digest.of_file(directory / "sparse") == digest.of_file(directory / "full")


@settings(deadline=None)  # a slow disk is no failure
@given(pieces, st.integers(0, SIZE - 1), st.integers(1, 255))
def test_every_byte_counts(tmp_path_factory, written, at, flip):
    path = tmp_path_factory.mktemp("d") / "file"
    contents = bytearray(contents_of(written))
    write(path, contents, sparse=True)
    before = digest.of_file(path)
    contents[at] ^= flip
    write(path, contents, sparse=True)
    assert digest.of_file(path) != before


def test_where_data_is_and_how_long_the_file_is_counts(tmp_path):
    path = tmp_path / "file"
    seen = set()
    for size, at in ((1 << 20, 0), (1 << 20, digest.BLOCK), (2 << 20, 0)):
        with path.open("wb") as file:
            file.truncate(size)
            os.pwrite(file.fileno(), b"x" * digest.BLOCK, at)
        seen.add(digest.of_file(path))
    for size in (0, 1 << 20, 2 << 20):
        with path.open("wb") as file:
            file.truncate(size)
        seen.add(digest.of_file(path))
    assert len(seen) == 6


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        digest.of_file(tmp_path / "none")
