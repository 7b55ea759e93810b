"""Nothing outside the directory is read, however its content is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firebrick.confined import OutsideError, names_beneath, open_beneath, read_beneath


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("content")
    (root / "link").symlink_to("/etc/passwd")
    (root / "up").symlink_to("..")
    (root / "a" / "inner").symlink_to("b")
    os.mkfifo(root / "pipe")
    return root


def test_a_file_is_read(tree: Path) -> None:
    assert read_beneath(tree, "a/b/file", 100) == b"content"


@pytest.mark.parametrize(
    "path",
    [
        "link",
        "up/secret",
        "a/inner/file",
        "../secret",
        "a/../a/b/file",
        "/etc/passwd",
        "",
        "a//b/file",
        "./a",
        "pipe",
        "a",
        "a/b/fi\0le",
    ],
)
def test_everything_else_is_outside(tree: Path, path: str) -> None:
    with pytest.raises(OutsideError):
        read_beneath(tree, path, 100)


def test_no_descriptor_is_left_open(tree: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("link", "up/secret", "a/b/none", "pipe", "a/b/file"):
        try:
            with open_beneath(tree, path):
                pass
        except OSError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_not_there_is_not_there(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_beneath(tree, "a/none", 100)
    with pytest.raises(NotADirectoryError):
        read_beneath(tree, "a/b/file/x", 100)


def test_what_is_too_large_is_refused(tree: Path) -> None:
    with pytest.raises(OutsideError, match="larger than 3 bytes"):
        read_beneath(tree, "a/b/file", 3)


def test_names(tree: Path) -> None:
    assert names_beneath(tree, "a") == ["b", "inner"]
    assert names_beneath(tree, "") == ["a", "link", "pipe", "up"]
    assert names_beneath(tree, "a/inner") == names_beneath(tree, "up") == names_beneath(tree, "none") == []
