"""The scenarios of the corpus that real shells in real machines must tell as the double does: the third that is marked `machine`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.tree import remove as remove_tree
from firebrick.workflow.reader import read_workflow
from tests.place import make_home
from tests.scenarios.runs.corpus import Scenario, check, follow, scenarios

pytestmark = pytest.mark.machine
REAL = [scenario for scenario in scenarios() if scenario.machine]
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One for all, so that all are forks of one template."""
    home = make_home(tmp_path_factory.mktemp("corpus") / "home")
    home.config_file.write_text(f'[node]\nactions = "{mirrors(home)}"\n')
    return home


def mirrors(home: Home) -> Path:
    return home.root / "mirrors"


@pytest.fixture
async def node(home: Home) -> AsyncIterator[Node]:
    async with Node.open(home, capacity=2) as node:
        yield node
    assert list(home.machines.iterdir()) == []


@pytest.mark.parametrize("scenario", REAL, ids=lambda scenario: scenario.id)
async def test_scenario(scenario: Scenario, home: Home, node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    remove_tree(mirrors(home))
    sha = scenario.write(source, mirrors(home))
    order = RunOrder(
        id="run-1",
        workflow=read_workflow(scenario.workflow, "ci.yml"),
        source=Source(path=source, repository="octo/hello", ref="refs/heads/main", sha=sha),
        artifact_dir=tmp_path / "artifacts",
        resources=Resources(vcpus=1, memory_mib=512, scratch_mib=1024, timeout_s=PATIENCE_S),
        **scenario.order,
    )
    async with asyncio.timeout(PATIENCE_S), node.start_run(order) as run:
        events, result = await follow(run, scenario.data.get("cancel_at"))
    check(scenario, events, result)
