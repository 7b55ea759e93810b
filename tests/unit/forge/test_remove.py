"""Removing what a repository nobody trusts has left: any modes, any depth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firebrick.forge.clone import remove_tree


def deepen(directory: Path, levels: int) -> None:
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        fd, above = os.open("d", os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(fd)


def test_a_tree_of_any_depth_is_removed(tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    deepen(tree, 3000)
    (tree / "d/file").write_text("x")
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_modes_links_and_other_trees(tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/link").symlink_to(other)
    (tree / "a/dangling").symlink_to("nowhere")
    (tree / "a/b/c/file").write_text("x")
    for directory in ("a/b/c", "a/b", "a"):
        (tree / directory).chmod(0)
    remove_tree(tree)
    remove_tree(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert (other / "kept").read_text() == "x"


@pytest.mark.parametrize("target", ["other", "nowhere"])
def test_a_link_in_its_place_goes_alone(tmp_path: Path, target: str):
    (tmp_path / "other").mkdir()
    (tmp_path / "tree").symlink_to(tmp_path / target)
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
