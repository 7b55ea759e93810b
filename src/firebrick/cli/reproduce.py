"""`firebrick run --verify-reproducible`: a run twice, in machines that differ in nothing that can be told, and their artifacts compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import typer

from firebrick.cli.carry import follow, make_room, new_run, run_status
from firebrick.cli.compare import Difference, compare
from firebrick.cli.errors import FAILURE, SUCCESS, UsageError
from firebrick.cli.node import warn
from firebrick.cli.order import Wish, commit_time, make_order
from firebrick.cli.plain import View
from firebrick.cli.terminal import tame, tame_json
from firebrick.home import Home
from firebrick.node.contract import RunResult
from firebrick.node.event import MachineKept
from firebrick.node.node import Node
from firebrick.node.order import Fixed, RunOrder
from firebrick.node.settings import NodeSettings

_NO_COMMIT_S: Final = 1_577_836_800  # 2020: later than what zip can say, earlier than what a clock says
_HOSTNAME: Final = "firebrick"
_RUNS: Final = ("first", "second")


async def verify(
    wish: Wish, view: View, artifacts: Path | None, settings: NodeSettings, *, as_json: bool = False
) -> int:
    """Two runs, one after the other. Ends with 0 only where both succeeded and made the same; with that of the run where one did not succeed."""
    if wish.resources.network:
        raise UsageError("a run with a network cannot be verified", hint="Leave --network out.")
    home, name = Home.find(), new_run()
    directory = (artifacts or home.runs / name / "artifacts").absolute()
    order = await _order(wish, name, directory)
    settings = msgspec.structs.replace(settings, network=False)
    results: list[RunResult] = []
    async with Node.open(home, settings=settings, warn=warn) as node:
        make_room(home.runs)
        (home.runs / name).mkdir(parents=True)
        for which in _RUNS:
            kept: list[MachineKept] = []
            once = replace(order, artifact_dir=directory / which)
            results.append(await follow(node, once, view, home.runs / name / f"{which}.txt", kept))
            if results[-1].conclusion.value != "success":
                view.notice(f"The {which} run did not succeed: there is nothing to compare.")
                return run_status(results[-1])
    compared = await asyncio.to_thread(compare, *(directory / which for which in _RUNS))
    return _tell(results, compared, view, as_json=as_json)


async def _order(wish: Wish, name: str, directory: Path) -> RunOrder:
    order = await make_order(wish, id=name, artifact_dir=directory)
    time_s = await commit_time(order.source.path) or _NO_COMMIT_S
    fixed = Fixed(time_s=time_s, hostname=_HOSTNAME, seed=order.source.sha or order.source.repository)
    return replace(order, resources=replace(order.resources, fixed=fixed))


def _tell(results: list[RunResult], compared: tuple[int, list[Difference]], view: View, *, as_json: bool) -> int:
    count, found = compared
    differences = [*found, *_outputs(*results)]
    if as_json:
        record = {
            "event": "compared",
            "artifacts": count,
            "differences": [{"path": each.path, "details": each.details} for each in differences],
        }
        typer.echo(tame_json(json.dumps(record)))
    else:
        for line in _lines(count, differences):
            view.notice(line)
    return FAILURE if differences or not count else SUCCESS


def _outputs(first: RunResult, second: RunResult) -> list[Difference]:
    """Of jobs: they are what a run makes as well."""
    found = []
    for key, job in first.jobs.items():
        other = second.jobs[key].outputs
        names = sorted(name for name in job.outputs.keys() | other.keys() if job.outputs.get(name) != other.get(name))
        if names:
            found.append(Difference(f"outputs of {key}", tuple(f"{name} is different" for name in names)))
    return found


def _lines(count: int, differences: list[Difference]) -> Iterator[str]:
    files = f"{count} file{'' if count == 1 else 's'}"
    if not count:
        yield "The runs stored no artifact: there is nothing to compare. `actions/upload-artifact` stores one."
    elif not differences:
        yield f"Reproducible: {files}, the same in both runs."
    else:
        yield f"Not reproducible: {len(differences)} of {files} differ."
    for each in differences:
        yield f"  {tame(each.path, colour=False)}"
        yield from (f"    {tame(detail, colour=False)}" for detail in each.details)
