"""Trees that somebody hostile has filled are removed."""

import os

import pytest

from firebrick import tree


@pytest.fixture
def deep(tmp_path):
    """A directory that nothing deep is left in: what removes old ones after a failure could not."""
    yield tmp_path
    tree.remove(tmp_path)
    tmp_path.mkdir()


def dig(directory, levels: int, mode: int) -> None:
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT, 0, dir_fd=deeper))
        os.fchmod(fd, mode)
        os.close(fd)
        fd = deeper
    os.close(fd)


@pytest.mark.parametrize("mode", [0o755, 0o555, 0o000])
def test_a_tree_goes_however_deep_and_whatever_its_modes(deep, mode):
    outside = deep / "outside"
    outside.mkdir()
    (outside / "file").touch()
    top = deep / "top"
    top.mkdir()
    (top / "link").symlink_to(outside)
    dig(top, 1500, mode)
    tree.remove(top)
    assert list(deep.iterdir()) == [outside]
    assert list(outside.iterdir()) == [outside / "file"]


def test_what_is_not_there_is_no_error_and_a_link_stays(tmp_path):
    tree.remove(tmp_path / "none")
    (tmp_path / "link").symlink_to(tmp_path)
    tree.remove(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
