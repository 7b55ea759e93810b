"""Rows about jobs and steps: what the runner adds to a machine and to a command, and how fast what a step writes comes to the disk, masked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import machines
from bench.bed import MEMORY_MIB, Bed
from bench.row import Row, compared
from firebrick import machine
from firebrick.machine import Machine, Snapshot
from firebrick.node.action.use import Entry, entries_of
from firebrick.node.cancel import Cancellation
from firebrick.node.event import Conclusion, JobFinished
from firebrick.node.journal import Journal
from firebrick.node.kept.keeper import Keeper
from firebrick.node.lines import LineSplitter
from firebrick.node.log import JobLog
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.node.settings import NodeSettings
from firebrick.node.step.bench import Bench, Facts
from firebrick.node.step.listener import Listener
from firebrick.node.step.step import run_step
from firebrick.workflow.command.matcher import MatcherSet
from firebrick.workflow.context import GuestPaths
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.shell import DEFAULT
from firebrick.workflow.syntax import RunDefaults, Workflow

_ROUNDS = 3
_JOBS = 7
_SHELL = ("bash", "-e", "-c", "echo first")
_SMALL = Resources(memory_mib=MEMORY_MIB)
_STEPS = 40
_MORE_MS = 5.0
_SCRIPT = "/tmp/step.sh"  # noqa: S108 - in the guest
_PATHS = GuestPaths()
_VARIABLES = {f"GITHUB_VARIABLE_{number}": "x" * 30 for number in range(50)}
_LINES = 200_000
_SECRETS = 100
_LINES_PER_S = 200_000.0
_CHUNK = 1 << 16


async def steps(bed: Bed) -> list[Row]:
    return [await _job(bed), await _step(bed), await _lines()]


async def _job(bed: Bed) -> Row:
    """By turns: a fork to the first output of the shell that steps have, and a job of one step that does nothing, from its order to its end, on a node that
    has its template."""
    async with machines.snapshot(bed, _SHELL) as taken, Node.open(bed.home) as node:
        forks, jobs = [], []
        for number in range(_JOBS + 1):
            forks.append(await _shell_of_fork(bed, taken))
            jobs.append(await _milliseconds(_run(node, bed.home.root, number)) / 1000)
    return compared("job that does nothing", "s", forks[1:], jobs[1:], 1.5)


async def _shell_of_fork(bed: Bed, taken: Snapshot) -> float:
    began = time.monotonic()
    async with machine.restore(taken, home=bed.home.root) as fork, fork.exec(_SHELL) as process:
        assert await anext(aiter(process.stdout))
        return time.monotonic() - began


async def _run(node: Node, directory: Path, number: int) -> None:
    source = Source(path=directory, repository="octo/bench", ref="refs/heads/main", sha="0" * 40)
    order = RunOrder(
        id=f"bench-{number}",
        workflow=_workflow(),
        source=source,
        artifact_dir=directory / "artifacts",
        resources=_SMALL,
    )
    async with node.start_run(order) as run:
        async for event in run.events():
            if isinstance(event, JobFinished):
                if event.conclusion is not Conclusion.SUCCESS:
                    raise RuntimeError(f"the job of the benchmark has failed: {event}")
                return


def _workflow() -> Workflow:
    return read_workflow("on: push\njobs: {build: {runs-on: base, steps: [{run: 'true'}]}}\n", "bench.yml")


async def _step(bed: Bed) -> Row:
    """In one machine, by turns: a step, and the same command line with as large an environment through the agent alone. A step may add some
    milliseconds to that."""
    async with machines.snapshot(bed) as taken, AsyncExitStack() as stack:
        fork, _ = await machines.started_fork(stack, taken, bed.home.root)
        await fork.files.write(_SCRIPT, b"true\n", mode=0o755)
        await fork.files.mkdir(_PATHS.workspace, parents=True)
        with Journal.create(bed.home.root / "journal") as journal:
            bench, entry = _bench(fork, JobLog("build", journal.append, limit=1 << 20))
            alone, steps_ = [], []
            for number in range(_STEPS + 1):
                alone.append(await _milliseconds(fork.run(DEFAULT.argv(_SCRIPT), env=_VARIABLES, check=True)))
                steps_.append(await _milliseconds(run_step(bench, number, entry)))
            if bench.failed:
                raise RuntimeError("a step of the benchmark has failed")
    return compared("step of `true`", "ms", [command + _MORE_MS for command in alone[1:]], steps_[1:], 1.0)


async def _milliseconds(work: Awaitable[object]) -> float:
    started = time.monotonic()
    await work
    return (time.monotonic() - started) * 1000


def _bench(guest: Machine, log: JobLog) -> tuple[Bench, Entry]:
    """A job with one step, without what that step does not use."""
    workflow = _workflow()
    source = Source(path=Path("/"), repository="octo/bench", ref="refs/heads/main", sha="0" * 40)
    settings = NodeSettings()
    unused: Any = None
    bench = Bench(
        order=RunOrder(id="bench", workflow=workflow, source=source, artifact_dir=Path("/")),
        job_id="build",
        paths=_PATHS,
        guest=guest,
        log=log,
        settings=settings,
        facts=Facts(scope=Scope({})),
        supplies=unused,
        keeper=Keeper(settings=settings, keep=None, machine=""),
        cancellation=Cancellation(300.0),
        defaults=RunDefaults(),
    )
    (entry,) = entries_of(workflow.jobs["build"].steps)
    return bench, entry


async def _lines() -> Row:
    """From bytes as they come from a machine to records in the journal's file, by processor time: on one core."""
    secrets = [f"secret-{number:03}-{'x' * (number % 20)}" for number in range(_SECRETS)]
    data = "".join(_written(secrets)).encode()
    rates = []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory() as directory, Journal.create(Path(directory)) as journal:
            log = JobLog("build", journal.append, secrets=secrets, limit=1 << 30)
            log.mask("")  # what secrets become is made once for a job
            started = time.process_time()
            await _hear(data, log)
            rates.append(_LINES / (time.process_time() - started))
    return compared("log lines to disk", "1/s", [_LINES_PER_S], rates, 1.0, more_is_better=True)


def _written(secrets: list[str]) -> Iterator[str]:
    for number in range(_LINES):
        secret = f" with {secrets[number % _SECRETS]}" if number % 20 == 0 else ""
        yield f"[{number:6}/{_LINES}] Building object-{number % 97}.o in src/part-{number % 13}/module{secret} -O2 -g\n"


async def _hear(data: bytes, log: JobLog) -> None:
    # All that a listener asks of its bench where no line is a command.
    bench: Any = SimpleNamespace(log=log, matchers=MatcherSet(), paths=SimpleNamespace(workspace="/w"))
    listener = Listener(bench, 0, {})
    splitter = LineSplitter(masker=log.masker)
    for at in range(0, len(data), _CHUNK):
        await listener.hear(splitter.feed(data[at : at + _CHUNK]))
    await listener.hear(splitter.end())
