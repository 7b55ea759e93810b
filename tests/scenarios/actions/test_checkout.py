"""What git says in a real machine, in an image that has it, after `actions/checkout`: as on a runner of GitHub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firebrick.cli.order import describe_source
from firebrick.home import Home
from firebrick.node.event import LogLine
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder
from firebrick.workflow.reader import read_workflow
from tests.e2e.repository import Repository, make_repository
from tests.place import make_home

pytestmark = pytest.mark.machine
PATIENCE_S = 240.0

WORKFLOW = """
on: push
jobs:
  build:
    runs-on: toolchain
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0, submodules: true}
      - run: |
          git status --porcelain --branch
          git rev-parse --abbrev-ref HEAD @{upstream}
          git describe --tags
          git diff --name-only HEAD~1
          git log --oneline | wc -l
          git branch --remotes --format='%(refname:short)'
          git remote get-url origin
          cat lib/lib.c
          git -C lib status --porcelain --branch
          git submodule status | cut -c 1,43-
          git fsck 2>&1 | grep -v dangling || true
      - run: |
          git switch -q -c fix origin/other 2> /dev/null
          git -c user.name=A -c user.email=a@example.org commit -q --allow-empty -m Fix
          git log --format=%s -2
      - uses: actions/checkout@v4
        with: {repository: octo/lib, path: deep/lib, sparse-checkout: src}
      - working-directory: deep/lib
        run: |
          git status --porcelain --branch
          ls
          git sparse-checkout disable
          ls
"""
SAID = [
    *("## main...origin/main", "main", "origin/main", "v1-2-gREV", "own", "3"),
    *("origin/main", "origin/other", "https://github.com/octo/hello"),
    *("library", "## HEAD (no branch)", " lib (remotes/origin/main)"),
    *("Fix", "One"),
    *("## main...origin/main", "lib.c", "src", "lib.c", "other", "src"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make_home(tmp_path_factory.mktemp("checkout") / "home")
    home.config_file.write_text(f'[node]\nactions = "{home.root}/mirrors"\n')
    lib = make_repository(home.root / "work", {"lib.c": "library\n", "src/a": "a", "other/b": "b"})
    lib.git("clone", "--quiet", "--mirror", ".", str(home.root / "mirrors" / "octo" / "lib.git"))
    return home


@pytest.fixture
async def node(home: Home) -> AsyncIterator[Node]:
    async with Node.open(home, capacity=1) as node:
        yield node
    assert list(home.machines.iterdir()) == []


def sources(path: Path, lib: str) -> Repository:
    own = make_repository(path)
    own.commit({"own": "1"}, "One")
    own.git("tag", "v1")
    own.git("branch", "other")
    own.git("remote", "add", "origin", "https://github.com/octo/hello.git")
    own.commit({".gitmodules": '[submodule "lib"]\n\tpath = lib\n\turl = ../lib.git\n'})
    own.git("update-index", "--add", "--cacheinfo", f"160000,{lib},lib")
    own.git("commit", "--quiet", "--amend", "--no-edit")
    (own.path / "lib").mkdir()
    (own.path / "own").write_text("2")
    own.git("commit", "--quiet", "--all", "--message", "Three")
    return own


async def test_git_is_satisfied(home: Home, node: Node, tmp_path: Path) -> None:
    own = sources(tmp_path / "source", Repository(home.root / "work").git("rev-parse", "HEAD"))
    order = RunOrder(
        id="run-checkout",
        workflow=read_workflow(WORKFLOW, "ci.yml"),
        source=await describe_source(own.path),
        artifact_dir=tmp_path / "artifacts",
        resources=Resources(vcpus=1, memory_mib=512, scratch_mib=512, timeout_s=PATIENCE_S),
    )
    async with asyncio.timeout(PATIENCE_S), node.start_run(order) as run:
        events = [event async for event in run.events()]
        result = await run.result()
    said = [event.text for event in events if isinstance(event, LogLine) and event.stream == "stdout"]
    assert result.conclusion == "success", said
    assert [line.replace(own.git("rev-parse", "--short", "HEAD"), "REV") for line in said] == SAID
