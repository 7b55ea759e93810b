"""Rows about steps: what the runner adds to a command, and how fast what a step writes comes to the disk, masked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import machines
from bench.bed import Bed
from bench.row import Row, compared
from firebrick.machine import Machine
from firebrick.node.event import JobFinished, StepFinished
from firebrick.node.journal import Journal
from firebrick.node.lines import LineSplitter
from firebrick.node.listener import Listener
from firebrick.node.log import JobLog
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.workflow.matcher import MatcherSet
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.shell import DEFAULT

_ROUNDS = 3
_STEPS = 25
_MORE_MS = 5.0
_LINES = 200_000
_SECRETS = 100
_LINES_PER_S = 200_000.0
_CHUNK = 1 << 16


async def steps(bed: Bed) -> list[Row]:
    return [await _step(bed), await _lines()]


async def _step(bed: Bed) -> Row:
    """The floor is what the same command line costs through the agent alone, and the milliseconds a step may add to it."""
    async with machines.snapshot(bed) as taken, AsyncExitStack() as stack:
        fork, _ = await machines.started_fork(stack, taken, bed.home.root)
        await fork.files.write("/tmp/step.sh", b"true\n", mode=0o755)  # noqa: S108 - in the guest
        commands = [await _command_ms(fork) for _ in range(_ROUNDS)]
    runs = [await _step_ms(bed, number) for number in range(_ROUNDS + 1)][1:]  # the first makes the template
    return compared("step of `true`", "ms", [command + _MORE_MS for command in commands], runs, 1.0)


async def _command_ms(fork: Machine) -> float:
    argv = DEFAULT.argv("/tmp/step.sh")  # noqa: S108 - in the guest
    started = time.monotonic()
    for _ in range(_STEPS):
        await fork.run(argv, check=True)
    return (time.monotonic() - started) / _STEPS * 1000


async def _step_ms(bed: Bed, number: int) -> float:
    """Of a run of many steps: from the end of the first to the end of the last."""
    text = "on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n" + "      - run: 'true'\n" * (_STEPS + 1)
    source = bed.home.root / f"source-{number}"
    source.mkdir()
    order = RunOrder(
        id=f"bench-{number}",
        workflow=read_workflow(text, "bench.yml"),
        source=Source(path=source, repository="octo/bench", ref="refs/heads/main", sha="0" * 40),
        artifact_dir=bed.home.root / "artifacts",
        resources=Resources(vcpus=1, memory_mib=bed.spec.memory_mib, scratch_mib=1024),
    )
    async with Node.open(bed.home, capacity=1) as node, node.start_run(order) as run:
        events = [event async for event in run.events()]
    ends = [event.at for event in events if isinstance(event, StepFinished)]
    if len(ends) != _STEPS + 1:
        raise RuntimeError(f"the run did not end well: {[e for e in events if isinstance(e, JobFinished)]}")
    return (ends[-1] - ends[0]) / _STEPS * 1000


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
    bench: Any = SimpleNamespace(log=log, matchers=MatcherSet(), debug=False, paths=SimpleNamespace(workspace="/w"))
    listener = Listener(bench, 0, {})
    splitter = LineSplitter(masker=log.masker)
    for at in range(0, len(data), _CHUNK):
        await listener.hear(splitter.feed(data[at : at + _CHUNK]))
    await listener.hear(splitter.end())
