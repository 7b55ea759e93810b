"""Saving the memory of a process: this one plays QEMU."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.machine import memory
from firebrick.machine.errors import SnapshotError

PAGES = 600
SIZE = PAGES * memory.PAGE


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "base"
    with path.open("wb") as f:
        f.truncate(SIZE)
        f.seek(3 * memory.PAGE)
        f.write(b"base" * 2048)
        f.seek(500 * memory.PAGE)
        f.write(b"tail" * 1024)
    return path


def mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as f:
        return mmap.mmap(f.fileno(), SIZE, flags=mmap.MAP_PRIVATE)


def test_what_was_booted_is_saved_without_its_zeros(tmp_path):
    guest = mmap.mmap(os.open(memory.NO_FILE, os.O_RDWR), SIZE, flags=mmap.MAP_PRIVATE)
    guest[10 * memory.PAGE : 10 * memory.PAGE + 5] = b"hello"
    guest[400 * memory.PAGE : 402 * memory.PAGE] = bytes(2 * memory.PAGE)
    target = tmp_path / "saved"
    own = memory.save(os.getpid(), memory.NO_FILE, SIZE, target)
    assert target.read_bytes() == bytes(guest)
    assert own < SIZE / 2
    assert target.stat().st_blocks * 512 < SIZE / 2


def test_a_fork_is_its_base_and_what_it_changed(tmp_path, base):
    before = base.read_bytes()
    guest = mapped(base)
    guest[:4] = b"head"
    guest[3 * memory.PAGE : 4 * memory.PAGE] = bytes(memory.PAGE)  # zeros over what was not
    guest[SIZE - 1 :] = b"z"
    target = tmp_path / "saved"
    own = memory.save(os.getpid(), base, SIZE, target)
    assert own == 3 * memory.PAGE
    assert target.read_bytes() == bytes(guest)
    assert base.read_bytes() == before


def test_pages_that_were_only_read_are_not_its_own(tmp_path, base):
    guest = mapped(base)
    assert sum(guest[:: memory.PAGE]) > 0
    address = ctypes.addressof(ctypes.c_char.from_buffer(guest))
    assert list(memory.private_ranges(os.getpid(), address, SIZE)) == []


@settings(deadline=None)  # a slow disk is no failure
@given(st.sets(st.integers(0, PAGES - 1), max_size=40))
def test_exactly_the_written_pages_are_its_own(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("m") / "base"
    with path.open("wb") as f:
        f.truncate(SIZE)
    guest = mapped(path)
    for page in written:
        guest[page * memory.PAGE] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(guest))
    found = set()
    for low, high in memory.private_ranges(os.getpid(), address, SIZE):
        found.update(range(low // memory.PAGE, high // memory.PAGE))
    assert found == written


def test_a_process_that_maps_something_else_is_refused(tmp_path, base):
    with pytest.raises(SnapshotError, match="maps no"):
        memory.save(os.getpid(), base, SIZE, tmp_path / "saved")


def test_a_process_that_is_gone_is_said(tmp_path, base):
    with pytest.raises(SnapshotError, match="ended"):
        memory.save(2**22 + 5, base, SIZE, tmp_path / "saved")


def test_a_sparse_file_is_copied_sparse(tmp_path, base):
    target = tmp_path / "copy"
    memory.copy_sparse(base, target)
    assert target.read_bytes() == base.read_bytes()
    assert target.stat().st_blocks <= base.stat().st_blocks
    assert target.stat().st_mode & 0o222 == 0


def test_extents_are_where_the_data_is(base):
    with base.open("rb") as f:
        extents = list(memory.data_extents(f.fileno(), SIZE))
    assert extents == [(3 * memory.PAGE, 5 * memory.PAGE), (500 * memory.PAGE, 501 * memory.PAGE)]


def test_a_difference_has_just_what_changed_and_the_zeros_among_it(tmp_path, base):
    guest = mapped(base)
    guest[:4] = b"head"
    guest[3 * memory.PAGE : 4 * memory.PAGE] = bytes(memory.PAGE)
    target = tmp_path / "saved"
    assert memory.save(os.getpid(), base, SIZE, target, diff=True) == 2 * memory.PAGE
    with target.open("rb") as f:
        assert list(memory.data_extents(f.fileno(), SIZE)) == [
            (0, memory.PAGE),
            (3 * memory.PAGE, 4 * memory.PAGE),
        ]
    whole = tmp_path / "whole"
    memory.copy_sparse(base, whole)
    whole.chmod(0o600)
    memory.overlay(target, [(0, memory.PAGE), (3 * memory.PAGE, 4 * memory.PAGE)], whole)
    assert whole.read_bytes() == bytes(guest)
