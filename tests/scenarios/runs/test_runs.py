"""Scenarios as data, in real machines: a workflow in; conclusions, lines, outputs, annotations and artifacts out."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from firebrick.cli.order import describe_source
from firebrick.home import Home
from firebrick.node.contract import RunResult
from firebrick.node.event import Annotation, ArtifactStored, Event, LogLine, StepFinished
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder
from firebrick.workflow.reader import read_workflow
from tests.place import make_home
from tests.scenarios.runs.corpus import follow

pytestmark = pytest.mark.machine
SCENARIOS = sorted(Path(__file__).parent.glob("*.yml"))
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("runs") / "home")


@pytest.fixture
async def node(home: Home) -> AsyncIterator[Node]:
    async with Node.open(home, capacity=2) as node:
        yield node
    assert list(home.machines.iterdir()) == []
    assert list(home.nodes.iterdir()) == []


def repository(target: Path, files: dict[str, str]) -> Path:
    target.mkdir()
    for name, content in {"README": "A test.\n", **files}.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(content)
    git = ["git", "-C", str(target), "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Start"]):
        subprocess.run([*git, *words], check=True)
    return target


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
async def test_scenario(node: Node, tmp_path: Path, path: Path) -> None:
    scenario = YAML(typ="safe").load(path)
    order = RunOrder(
        id=f"run-{path.stem}",
        workflow=read_workflow(scenario["workflow"], path.name),
        source=await describe_source(repository(tmp_path / "source", scenario.get("files", {}))),
        artifact_dir=tmp_path / "artifacts",
        resources=Resources(vcpus=1, memory_mib=512, scratch_mib=1024, timeout_s=scenario.get("timeout_s", PATIENCE_S)),
        secrets=scenario.get("secrets", {}),
    )
    async with asyncio.timeout(PATIENCE_S), node.start_run(order) as run:
        events, result = await follow(run, scenario.get("cancel_at"))
    check(scenario["expect"], events, result)
    check_artifacts(scenario["expect"].get("artifacts", {}), events, order.artifact_dir)


def check(expect: dict[str, Any], events: list[Event], result: RunResult) -> None:
    story = "\n".join(map(repr, events))
    assert result.conclusion.value == expect["conclusion"], story
    assert result.message == expect.get("message", ""), story
    for job, conclusion in expect.get("jobs", {}).items():
        assert result.jobs[job].conclusion.value == conclusion, story
    for job, outputs in expect.get("outputs", {}).items():
        assert result.jobs[job].outputs == outputs
    for job, conclusions in expect.get("steps", {}).items():
        found = [e.conclusion.value for e in events if isinstance(e, StepFinished) and e.job == job]
        assert found == conclusions, story
    check_words(expect, events, story)


def check_words(expect: dict[str, Any], events: list[Event], story: str) -> None:
    said = [event for event in events if isinstance(event, LogLine)]
    for job, lines in expect.get("lines", {}).items():
        texts = [event.text for event in said if event.job == job]
        assert [line for line in texts if line in lines] == lines, story
    for job, parts in expect.get("contains", {}).items():
        whole = "\n".join(event.text for event in said if event.job == job)
        assert [part for part in parts if part not in whole] == [], story
    whole = "".join(f"{event.text}\n" for event in said)
    assert [part for part in expect.get("never", []) if part in whole] == [], story
    summaries = [event.summary for event in events if isinstance(event, StepFinished) and event.summary]
    assert summaries == expect.get("summaries", [])
    annotations = [event for event in events if isinstance(event, Annotation)]
    for wanted in expect.get("annotations", []):
        assert any(all(getattr(a, key) == value for key, value in wanted.items()) for a in annotations), story


def check_artifacts(expected: dict[str, int], events: list[Event], directory: Path) -> None:
    stored = {event.path: event.size for event in events if isinstance(event, ArtifactStored)}
    assert stored == expected
    files = [file for file in directory.rglob("*") if not file.is_dir()] if directory.exists() else []
    assert {str(file.relative_to(directory)): file.stat().st_size for file in files} == expected
    assert not any(file.is_symlink() for file in files)
