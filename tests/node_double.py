"""A node without machines, as strict as the contract: for tests of what orders runs.

The steps of a job say what is to happen, one word and its arguments a line:

    say TEXT...            a line of output
    lines COUNT [SIZE]     so many lines
    keep PATH TEXT...      an artifact
    sparse PATH SIZE       an artifact that takes long to read
    fail STATUS            the step fails
    forgive STATUS         the step fails, and the job goes on
    hang                   until cancelled
    gate NAME              until the test opens the gate
    unprepared             (first step) the machine is never there
    first: ...             only in the first attempt, as the run's id tells

With `programs` each machine is a real process, which must be gone when its run is, or its owner.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from firebrick.node.contract import JobResult, RunResult
from firebrick.node.errors import NodeError
from firebrick.node.event import (
    ArtifactStored,
    CancelCause,
    Conclusion,
    Event,
    JobFinished,
    JobStarted,
    LogLine,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)
from firebrick.node.kept.shelf import Entry
from firebrick.node.order import Resources, RunOrder
from firebrick.process import spawn
from firebrick.workflow.syntax import Job


class StepFailedError(Exception):
    def __init__(self, status: int, *, forgiven: bool = False) -> None:
        self.status = status
        self.forgiven = forgiven


class DoubleRun:
    def __init__(self, order: RunOrder, node: DoubleNode) -> None:
        self.order = order
        self._node = node
        self._events: list[Event] = []
        self._more = asyncio.Condition()
        self._cancelled: asyncio.Future[CancelCause] = asyncio.get_running_loop().create_future()
        self._result: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._started = time.monotonic()

    async def events(self) -> AsyncIterator[Event]:
        index = 0
        while True:
            async with self._more:
                await self._more.wait_for(lambda: len(self._events) > index)  # noqa: B023
            while index < len(self._events):
                event = self._events[index]
                index += 1
                yield event
                if isinstance(event, RunFinished):
                    return

    def cancel(self, cause: CancelCause) -> None:
        assert isinstance(cause, CancelCause)
        if not self._cancelled.done():
            self._cancelled.set_result(cause)

    async def result(self) -> RunResult:
        return await asyncio.shield(self._result)

    async def tell(self, event: type[Event], **fields: Any) -> None:
        async with self._more:
            self._events.append(event(at=time.time(), **fields))
            self._more.notify_all()

    async def carry_out(self) -> None:
        await self.tell(
            RunStarted, run=self.order.id, workflow=self.order.workflow.name, jobs=tuple(self.order.workflow.jobs)
        )
        jobs: dict[str, JobResult] = {}
        for name, job in self.order.workflow.jobs.items():
            if (known := self.order.earlier.jobs.get(name)) is not None:
                jobs[name] = JobResult(conclusion=Conclusion(known.result), outputs=known.outputs)
                await self._take_over(name)
            elif any(jobs[need].conclusion is Conclusion.WAITING for need in job.needs):
                jobs[name] = JobResult(conclusion=Conclusion.WAITING)
            else:
                jobs[name] = await self._in_environment(job) or await self._job(name)
        results = [job.conclusion for job in jobs.values()]
        ends = (Conclusion.WAITING, Conclusion.CANCELLED, Conclusion.FAILURE, Conclusion.SUCCESS)
        await self.finish(next((end for end in ends if end in results), Conclusion.SUCCESS), jobs)

    async def _take_over(self, job: str) -> None:
        earlier = self.order.earlier
        for file in earlier.files:
            if file.job == job:
                await self._keep(job, file.path, (earlier.directory / file.path).read_bytes())

    async def _in_environment(self, job: Job) -> JobResult | None:
        """What keeps the job from its environment; it is told what that gives."""
        name = job.environment.name.raw if job.environment is not None else ""
        environment = self.order.environments.get(name)
        if environment is None:
            return None
        if environment.refusal:
            return JobResult(conclusion=Conclusion.FAILURE, message=environment.refusal)
        if environment.waits:
            return JobResult(conclusion=Conclusion.WAITING, message=environment.waits, environment=name)
        return None

    async def finish(self, conclusion: Conclusion, jobs: dict[str, JobResult], message: str = "") -> None:
        seconds = time.monotonic() - self._started
        await self.tell(RunFinished, run=self.order.id, conclusion=conclusion, seconds=seconds, message=message)
        if not self._result.done():
            self._result.set_result(RunResult(conclusion=conclusion, seconds=seconds, jobs=jobs, message=message))

    async def _job(self, name: str) -> JobResult:
        job = self.order.workflow.jobs[name]
        scripts = [(step.display_name, step.run.raw if step.run else "") for step in job.steps]
        work = asyncio.create_task(self._steps(name, scripts))
        timeout = asyncio.create_task(asyncio.sleep(self.order.resources.timeout_s))
        message = ""
        try:
            await asyncio.wait((work, timeout, self._cancelled), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                conclusion = work.result()
            elif self._cancelled.done():
                conclusion = Conclusion.CANCELLED
            else:
                conclusion, message = (
                    Conclusion.FAILURE,
                    f"the run took longer than {self.order.resources.timeout_s:g} s",
                )
        finally:
            for task in (work, timeout):
                task.cancel()
            await asyncio.wait((work, timeout))
        await self.tell(JobFinished, job=name, conclusion=conclusion, seconds=0.0, outputs={}, message=message)
        return JobResult(conclusion=conclusion, message=message)

    async def _steps(self, job: str, scripts: list[tuple[str, str]]) -> Conclusion:
        async with AsyncExitStack() as machine:
            if self._node.programs:
                await machine.enter_async_context(spawn(["sleep", f"31536{self._node.number}"]))
            lines = [self._line(line) for _, script in scripts for line in script.splitlines()]
            if "unprepared" in lines:
                await asyncio.Future()
            names = tuple(name for name, _ in scripts)
            await self.tell(
                JobStarted, job=job, name=job, machine="m1", image="double", start="fork", start_ms=1.0, steps=names
            )
            for index, (name, script) in enumerate(scripts):
                await self.tell(StepStarted, job=job, step=index, name=name)
                try:
                    for line in script.splitlines():
                        await self._do(job, index, self._line(line))
                except StepFailedError as failed:
                    after = Conclusion.SUCCESS if failed.forgiven else Conclusion.FAILURE
                    how = {"conclusion": after, "outcome": Conclusion.FAILURE, "exit_code": failed.status}
                    await self.tell(StepFinished, job=job, step=index, seconds=0.0, **how)
                    if failed.forgiven:
                        continue
                    return Conclusion.FAILURE
                await self.tell(
                    StepFinished, job=job, step=index, conclusion=Conclusion.SUCCESS, seconds=0.0, exit_code=0
                )
        return Conclusion.SUCCESS

    def _line(self, line: str) -> str:
        if line.startswith("first: "):
            return line.removeprefix("first: ") if self.order.id.endswith("-1") else ""
        return line

    async def _do(self, job: str, step: int, line: str) -> None:
        verb, _, rest = line.strip().partition(" ")
        match verb:
            case "":
                pass
            case "say":
                await self.tell(LogLine, job=job, step=step, stream="stdout", text=rest)
            case "lines":
                count, _, size = rest.partition(" ")
                for number in range(int(count)):
                    await self.tell(
                        LogLine, job=job, step=step, stream="stdout", text=f"{number:06}".ljust(int(size or 6), "x")
                    )
            case "keep":
                path, _, text = rest.partition(" ")
                await self._keep(job, path, text.encode())
            case "sparse":
                path, _, size = rest.partition(" ")
                target = self.order.artifact_dir / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.truncate(int(size))
            case "fail":
                raise StepFailedError(int(rest))
            case "forgive":
                raise StepFailedError(int(rest), forgiven=True)
            case "hang":
                await asyncio.Future()
            case "gate":
                self._node.at_gate[rest].set()
                await self._node.gates[rest].wait()
            case "unprepared":
                pass
            case _:
                raise AssertionError(f"the double does not know {line!r}")

    async def _keep(self, job: str, path: str, data: bytes) -> None:
        target = self.order.artifact_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        await self.tell(ArtifactStored, job=job, name="kept", path=path, size=len(data), sha256=digest)


class DoubleNode:
    """See above. `most` is the largest number of runs that were under way at once; `live` must be empty when nothing runs."""

    def __init__(self, machines: int = 4, *, programs: bool = False, number: int = 0) -> None:
        self.machines = machines
        self.programs = programs
        self.number = number
        self.orders: list[RunOrder] = []
        self.live: set[str] = set()
        self.checkpoints: dict[tuple[str, int], Entry] = {}
        self.most = 0
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.at_gate: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @asynccontextmanager
    async def start_run(self, order: RunOrder) -> AsyncIterator[DoubleRun]:
        assert order.id not in {o.id for o in self.orders}, "a run's id is used once"
        assert order.source.path.is_dir()
        assert order.source.sha
        assert order.source.ref
        self.orders.append(order)
        self.live.add(order.id)
        self.most = max(self.most, len(self.live))
        run = DoubleRun(order, self)
        task = asyncio.create_task(run.carry_out(), name=f"double-{order.id}")
        try:
            yield run
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not run._result.done():
                await run.finish(Conclusion.CANCELLED, {}, "the run was left")
            self.live.remove(order.id)

    def checkpoint(self, run: str, job: str | None, step: int) -> Entry:
        entry = self.checkpoints.get((run, step))
        if entry is None:
            raise NodeError(f"no checkpoint of run {run} is kept", hint="Take some.")
        return entry

    async def prepare(self, image: str, resources: Resources) -> None:
        pass
