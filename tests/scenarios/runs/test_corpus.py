"""The scenarios of the corpus, on guests in memory whose shell is `tests.scenarios.shell`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from firebrick.node.settings import NodeSettings
from tests.scenarios.runs.corpus import Scenario, check, follow, scenarios
from tests.scenarios.shell import shell_programs
from tests.unit.node.conftest import Bed, DoubleActions, DoubleLender

ALL = list(scenarios())
# Long enough for a trap, short enough for a test.
SETTINGS = NodeSettings(interrupt_s=0.3, terminate_s=0.3, cancel_s=3.0)


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.id)
async def test_scenario(scenario: Scenario, tmp_path: Path) -> None:
    complaints: list[str] = []
    settings = msgspec.structs.replace(SETTINGS, actions=str(tmp_path / "mirrors"))
    bed = Bed(
        tmp_path, DoubleLender(programs=shell_programs(complaints)), settings, DoubleActions(tmp_path / "actions")
    )
    known = {name: scenario.data[name] for name in ("event", "event_name", "ref") if name in scenario.data}
    known["sha"] = scenario.write(tmp_path / "source", tmp_path / "mirrors")
    async with bed.live(scenario.workflow, source=known, **scenario.order) as run:
        events, result = await follow(run, scenario.data.get("cancel_at"))
    assert complaints == []
    check(scenario, events, result)


def test_names_are_unique_and_a_third_runs_in_machines() -> None:
    assert len({scenario.id for scenario in ALL}) == len(ALL) >= 120
    assert sum(scenario.machine for scenario in ALL) * 3 >= len(ALL)
