"""The manifest names every regular file, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from firebrick.server.artifact import Manifest, gather, read_manifest, write_manifest


def test_files_are_hashed_and_links_and_pipes_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "b").write_bytes(b"bb")
    (tmp_path / "out" / "a").write_bytes(b"")
    (tmp_path / "z").write_bytes(b"z")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "out" / "loop").symlink_to(tmp_path)
    (tmp_path / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    found, left_out = gather(tmp_path, {"z": ("named", "job")})
    assert left_out == "files left out because their path is not UTF-8: 1, the first is 'not-utf8-\ufffd'"
    assert [(a.path, a.size, a.name, a.job) for a in found] == [
        ("z", 1, "named", "job"),
        ("out/a", 0, "", ""),
        ("out/deep/b", 2, "", ""),
    ]
    assert found[2].sha256 == hashlib.sha256(b"bb").hexdigest()


def test_the_manifest_is_json_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    assert read_manifest(path) is None
    (tmp_path / "a").write_text("x")
    artifacts, _ = gather(tmp_path, {})
    manifest = Manifest(
        build_id="b", repo_url="u", branch="main", commit="c", created_at="t", total_size=1, artifacts=artifacts
    )
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    assert json.loads(path.read_text())["artifacts"][0]["path"] == "a"
    assert not list(tmp_path.glob("*.partial"))


def test_below_a_directory_whose_name_is_no_text_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"d\xff") / "inner").mkdir(parents=True)
    (tmp_path / os.fsdecode(b"d\xff") / "inner" / "file").write_bytes(b"x")
    (tmp_path / "good").write_bytes(b"y")
    artifacts, left_out = gather(tmp_path, {})
    assert [artifact.path for artifact in artifacts] == ["good"]
    assert "'d\ufffd/inner/file'" in left_out
    write_manifest(
        tmp_path.with_suffix(".json"),
        Manifest(build_id="", repo_url="", branch="", commit="", created_at="", total_size=1, artifacts=artifacts),
    )


def test_beyond_the_most_files_it_is_said_how_many_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firebrick.server.artifact._MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    artifacts, left_out = gather(tmp_path, {})
    assert [artifact.path for artifact in artifacts] == ["a", "b"]
    assert left_out == "files left out because there are more than 2: 1"
