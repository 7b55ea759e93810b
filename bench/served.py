"""Rows about the whole: a request to the server, and the command line, on a host that has done it before."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import machines
from bench.bed import Bed
from bench.row import Row
from firebrick.forge.address import parse_address
from firebrick.forge.clone import clone
from tests.place import environment
from tests.scenarios.projects.programs import Server, serving
from tools import project

_ROUNDS = 5
_WORKFLOW = """\
on: push
jobs:
  one:
    runs-on: base
    steps:
      - run: echo the first line
"""


async def whole(bed: Bed) -> list[Row]:
    """Both rows, each against what the row before it has cost in this run."""
    repository = _repository(bed.home.root.parent)
    fork_s = await _fork_seconds(bed)
    clone_s = await _clone_seconds(repository, bed.home.root.parent / "clones")
    submits = await asyncio.to_thread(_submits, bed, repository)
    allowed = 2 * fork_s + clone_s
    runs = await asyncio.to_thread(_runs, bed, repository)
    submit = statistics.median(submits)
    return [
        Row(name="submit to first line", unit="s", floor=allowed, value=submit, limit=1.0, spread=_spread(submits)),
        Row(
            name="run of one line",
            unit="s",
            floor=submit + 1.0,
            value=statistics.median(runs),
            limit=1.0,
            spread=_spread(runs),
        ),
    ]


def _spread(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def _repository(directory: Path) -> Path:
    repository = directory / "one-line"
    workflows = repository / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "build.yml").write_text(_WORKFLOW)
    project.commit(repository, "One line")
    return repository


async def _fork_seconds(bed: Bed) -> float:
    """A fork to its first output, as the row of that name measures it."""
    async with machines.snapshot(bed) as taken:
        return statistics.median(await machines.fork_times(bed, taken, _ROUNDS))


async def _clone_seconds(repository: Path, directory: Path) -> float:
    directory.mkdir()
    address = parse_address(f"file://{repository}", protocols=frozenset({"file"}))
    took = []
    for number in range(_ROUNDS):
        started = time.monotonic()
        await clone(address, directory / str(number), branch="main")
        took.append(time.monotonic() - started)
    return statistics.median(took)


def _submits(bed: Bed, repository: Path) -> list[float]:
    with serving(bed.home) as server:
        # The first makes the template.
        return [_submit(server, repository) for _ in range(_ROUNDS + 1)][1:]


def _submit(server: Server, repository: Path) -> float:
    """From the request to the first line of the first step, as somebody sees it who follows the log."""
    started = time.monotonic()
    build = server.submit(repository)
    took = None
    with server.client.stream("GET", f"/build/{build}/log", params={"follow": "1"}, timeout=120) as events:
        for line in events.iter_lines():
            if took is None and line.startswith("data:") and json.loads(line[5:]).get("text") == "the first line":
                took = time.monotonic() - started
    if took is None:
        raise RuntimeError(f"the build wrote no line: {server.build(build)}")
    return took


def _runs(bed: Bed, repository: Path) -> list[float]:
    argv = [str(Path(sys.executable).with_name("firebrick")), "run", "-C", str(repository)]
    took = []
    for _ in range(_ROUNDS + 1):
        started = time.monotonic()
        subprocess.run(argv, env=environment(bed.home), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        took.append(time.monotonic() - started)
    return took[1:]
