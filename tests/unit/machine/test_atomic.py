"""What becomes of a small file when its disk is full."""

import errno
from pathlib import Path

import pytest

from firebrick.machine import HostError, atomic


@pytest.fixture
def full(monkeypatch):
    """Nothing can be written any more."""

    def write_bytes(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_it_is_for_its_owner_alone(tmp_path):
    atomic.write(tmp_path / "f", b"1")
    assert (tmp_path / "f").read_bytes() == b"1"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_it_is_as_before_where_it_cannot_be_written(tmp_path, request):
    atomic.write(tmp_path / "f", b"1")
    request.getfixturevalue("full")
    with pytest.raises(HostError, match=f"cannot write {tmp_path / 'f'}: No space left") as told:
        atomic.write(tmp_path / "f", b"2")
    assert "space" in told.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"1"


def test_nothing_is_done_where_it_could_not_be_noted(tmp_path, full):
    with pytest.raises(HostError), atomic.prepared(tmp_path / "f", b"1"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_what_fails_meanwhile_is_not_noted(tmp_path):
    with pytest.raises(KeyError), atomic.prepared(tmp_path / "f", b"1"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
