"""Actions in a real machine: one of the workspace that is composite, one in JavaScript with state, and one of another repository."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firebrick.cli.order import describe_source
from firebrick.home import Home
from firebrick.node.action.externals import VERSION
from firebrick.node.event import ActionResolved, Event, LogLine, StepFinished, StepStarted
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder
from firebrick.node.settings import NodeSettings
from firebrick.workflow.reader import read_workflow
from tests.place import make_home
from tools import project

pytestmark = pytest.mark.machine
PATIENCE_S = 240.0

WORKFLOW = """
on: push
jobs:
  build:
    runs-on: firebrick-base
    steps:
      - uses: actions/checkout@v4
      - id: greet
        uses: ./.github/actions/greet
        with: {who: World}
      - run: echo "greeted ${{ steps.greet.outputs.greeting }}"
      - id: count
        uses: ./.github/actions/count
        with:
          fetch-depth: 7
          text: ${{ steps.greet.outputs.long }}
      - uses: octo/tools/say@v1
        with: {token: '${{ secrets.TOKEN }}'}
      - run: echo "counted ${{ steps.count.outputs.length }} on $COUNTED"
"""

COMPOSITE = """
name: Greet
description: Greets
inputs:
  who: {description: whom, required: true}
  how: {description: how, default: Hello}
outputs:
  greeting: {description: x, value: '${{ steps.made.outputs.text }}'}
  long: {description: x, value: '${{ steps.made.outputs.long }}'}
runs:
  using: composite
  steps:
    - id: made
      shell: bash
      run: |
        echo "text=${{ inputs.how }} ${{ inputs.who }} from $(basename "$GITHUB_ACTION_PATH")" >> "$GITHUB_OUTPUT"
        printf 'long=%0100000d\\n' 7 >> "$GITHUB_OUTPUT"
    - uses: octo/tools/say@v1
"""

JAVASCRIPT = """
name: Count
description: Counts
inputs:
  fetch-depth: {description: x, default: '1'}
  text: {description: x}
runs: {using: node16, main: dist/main.js, post: dist/post.js}
"""
MAIN = """
const fs = require('fs');
console.log(`depth ${process.env['INPUT_FETCH-DEPTH']} with node ${process.versions.node.split('.')[0]}`);
fs.appendFileSync(process.env.GITHUB_OUTPUT, `length=${process.env.INPUT_TEXT.length}\\n`);
fs.appendFileSync(process.env.GITHUB_ENV, `COUNTED=${process.platform}\\n`);
fs.appendFileSync(process.env.GITHUB_STATE, 'began=<<yes>>\\n');
console.log(`token ${process.env.INPUT_TOKEN}, rest ${process.env.FIREBRICK_VARIABLES}`);
console.error('::notice title=Count::counted');
"""
POST = "console.log(`ended, began ${process.env.STATE_began}`);\n"

SAY = """
name: Say
description: Says
inputs: {token: {description: x, default: none}}
runs: {using: node20, pre: ../index.js, main: ../index.js, post: ../index.js}
"""
INDEX = """
const fs = require('fs');
const state = process.env.STATE_times || '';
console.log(`say ${state || 'first'} of ${process.env.GITHUB_ACTION_REPOSITORY}@${process.env.GITHUB_ACTION_REF}: ${process.env.INPUT_TOKEN}`);
fs.appendFileSync(process.env.GITHUB_STATE, `times=${state}I\\n`);
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """With the Node.js of the user's home where that has it, so that it is fetched once."""
    home = make_home(tmp_path_factory.mktemp("actions") / "home")
    kept = Home.find().cache / "externals" / f"node-{VERSION}"
    if kept.is_dir():
        shutil.copytree(kept, home.cache / "externals" / kept.name)
    return home


@pytest.fixture
async def node(home: Home, tmp_path: Path) -> AsyncIterator[Node]:
    mirror = tmp_path / "mirror"
    tools = tmp_path / "tools"
    write(tools, {"say/action.yml": SAY, "index.js": INDEX})
    project.commit(tools, "Start")
    for words in (["tag", "v1"], ["clone", "--quiet", "--mirror", ".", str(mirror / "octo" / "tools.git")]):
        subprocess.run(["git", *words], cwd=tools, check=True)
    async with Node.open(home, capacity=1, settings=NodeSettings(actions=str(mirror))) as node:
        yield node
    assert list(home.machines.iterdir()) == []


def write(directory: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)


async def test_actions_of_every_origin(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    actions = {"greet/action.yml": COMPOSITE, "count/action.yml": JAVASCRIPT}
    actions |= {"count/dist/main.js": MAIN, "count/dist/post.js": POST}
    write(source, {f".github/actions/{name}": text for name, text in actions.items()})
    project.commit(source, "Start")
    order = RunOrder(
        id="run-actions",
        workflow=read_workflow(WORKFLOW, "ci.yml"),
        source=await describe_source(source),
        artifact_dir=tmp_path / "artifacts",
        resources=Resources(vcpus=1, memory_mib=512, scratch_mib=1024, timeout_s=PATIENCE_S),
        secrets={"TOKEN": "hunter2-long"},
    )
    async with asyncio.timeout(PATIENCE_S), node.start_run(order) as run:
        events = [event async for event in run.events()]
        result = await run.result()
    story = "\n".join(map(repr, events))
    assert result.conclusion == "success", story
    check(events, story)


def check(events: list[Event], story: str) -> None:
    names = [event.name for event in events if isinstance(event, StepStarted)]
    assert names == [
        "Pre Run octo/tools/say@v1",
        "Run actions/checkout@v4",
        "Run ./.github/actions/greet",
        'Run echo "greeted Hello World from greet"',
        "Run ./.github/actions/count",
        "Run octo/tools/say@v1",
        'Run echo "counted 100000 on $COUNTED"',
        "Post Run ./.github/actions/count",
        "Post Run ./.github/actions/greet",
        "Post Run octo/tools/say@v1",
    ], story
    assert {event.conclusion.value for event in events if isinstance(event, StepFinished)} == {"success"}
    said = [event.text for event in events if isinstance(event, LogLine) and event.stream == "stdout"]
    assert said == [
        "say first of octo/tools@v1: ***",
        "##[warning]`pre` execution is not supported for local action from './.github/actions/greet'",
        "say first of octo/tools@v1: none",
        "greeted Hello World from greet",
        "depth 7 with node 24",
        "token undefined, rest undefined",
        "##[notice]counted",
        "say I of octo/tools@v1: ***",
        "counted 100000 on linux",
        "ended, began <<yes>>",
        "say I of octo/tools@v1: none",
        "say II of octo/tools@v1: ***",
    ], story
    assert len([event for event in events if isinstance(event, ActionResolved)]) == 1
