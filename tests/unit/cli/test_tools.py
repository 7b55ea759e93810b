"""`firebrick tools`, from what is typed to what is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from firebrick.cli.errors import UsageError
from firebrick.cli.tools import app
from firebrick.node.errors import ToolError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text("[node.tools]\ntool_mib = 1\nfree_mib = 1\n")
    return tmp_path / "home"


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    (tmp_path / "node/bin").mkdir(parents=True)
    (tmp_path / "node/bin/node").write_bytes(b"program")
    return tmp_path / "node"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_what_is_added_is_listed_and_removed(home: Path, tool: Path):
    added = call("add", "node", "20.1.0", tool, "--arch", "x64")
    assert added.exit_code == 0
    assert added.output.startswith("node 20.1.0 (x64) 7 B sha256:")
    digest = added.output.strip().rpartition(":")[2]
    [listed] = json.loads(call("ls", "--json").output)
    assert (listed["tool"], listed["version"], listed["arch"], listed["size"]) == ("node", "20.1.0", "x64", 7)
    assert (listed["sha256"], listed["repository"], listed["scope"]) == (digest, "", "")
    assert os.listdir(home / "tools/trees") == [digest]
    heading, row = call("ls").output.splitlines()
    assert heading.split() == ["tool", "version", "arch", "of", "ref", "size", "used", "digest"]
    assert row.split()[:4] == ["node", "20.1.0", "x64", "everybody"]
    assert str(call("rm", "node", "18.0.0").exception) == "no tool node 18.0.0 is kept"
    assert "removed 1" in call("rm", "node", "20.1.0").output
    assert os.listdir(home / "tools/trees") == []
    assert "no tool is kept" in call("ls").output


def test_another_tree_takes_the_place_of_one_with_the_same_name(home: Path, tool: Path):
    call("add", "node", "20.1.0", tool)
    (tool / "bin/node").write_bytes(b"better")
    call("add", "node", "20.1.0", tool)
    [listed] = json.loads(call("ls", "--json").output)
    assert listed["size"] == 6
    assert os.listdir(home / "tools/trees") == [listed["sha256"]]


@pytest.mark.parametrize("words", [("../node", "1"), ("node", ""), ("node", "1/2"), ("node", "1", "--arch", "x 64")])
def test_a_name_that_is_none_is_refused(home: Path, tool: Path, words: tuple[str, ...]):
    refused = call("add", *words[:2], tool, *words[2:])
    assert refused.exit_code != 0
    assert "do not name a tool" in str(refused.exception)
    assert not (home / "tools").exists()


@pytest.mark.parametrize(
    "version",
    [
        "20",
        "20.1",
        "v20.1.0",
        "20.1.0.4",
        "17.0.9+9",
        "01.2.3",
        "1.2.3-01",
        "1.2.3-",
        "1.2.3-rc_1",
        "1.2.3-a..b",
        "head",
        f"{10**15}.0.0",
    ],
)
def test_a_version_no_job_would_find_is_refused(home: Path, tool: Path, version: str):
    refused = call("add", "node", version, tool)
    assert isinstance(refused.exception, UsageError)
    assert f"no job would find node {version}" in str(refused.exception)
    assert not (home / "tools").exists()


@pytest.mark.parametrize("version", ["20.1.0", "0.0.0", "3.14.0-rc.1", "17.0.9-9", "0.0.0-20231213", "1.2.3--1a.x-y.0"])
def test_a_version_jobs_find_is_added(home: Path, tool: Path, version: str):
    assert call("add", "node", version, tool).exit_code == 0


def test_a_tool_that_is_too_large_leaves_nothing(home: Path, tool: Path):
    (tool / "big").write_bytes(b"x" * (1 << 20))
    refused = call("add", "node", "1.0.0", tool)
    assert isinstance(refused.exception, ToolError)
    assert os.listdir(home / "tools/trees") == []


def test_what_is_no_tool_is_told_in_words(home: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped/é")
    said = {
        name: str(call("add", "x", "1.0.0", tmp_path / name).exception) for name in ("gone", "empty", "text", "piped")
    }
    assert said == {
        "gone": f"cannot take the tool from {tmp_path}/gone: No such file or directory",
        "empty": f"cannot take the tool from {tmp_path}/empty: there is nothing in it",
        "text": f"cannot take the tool from {tmp_path}/text: it is no whole tar archive",
        "piped": "a tool is files, directories and links, and 'é' is none",
    }
    assert "no tool is kept" in call("ls").output


@pytest.mark.parametrize("words", [(), ("node", "--all")])
def test_what_to_remove_must_be_said(home: Path, words: tuple[str, ...]):
    assert "say which tool" in str(call("rm", *words).exception)
