"""One run: its jobs when their needs are done, several at once, until the last; then how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from firebrick.node.action.source import ActionSource, NoActions
from firebrick.node.artifact import ArtifactShelf
from firebrick.node.cancel import Cancellation
from firebrick.node.context import guest_paths, run_facts
from firebrick.node.contract import JobResult, RunResult
from firebrick.node.event import CancelCause, Conclusion, Event, JobFinished, RunFinished, RunStarted
from firebrick.node.guest import Lender
from firebrick.node.job import JobTask, cause_message, run_job
from firebrick.node.journal import Journal
from firebrick.node.log import JobLog
from firebrick.node.order import RunOrder
from firebrick.node.settings import NodeSettings
from firebrick.process import shielded
from firebrick.workflow.context import github_context
from firebrick.workflow.expression import EvaluationError, Value
from firebrick.workflow.outcome import (
    FAILURE,
    SUCCESS,
    JobOutcome,
    flag,
    job_scope,
    merge,
    run_result,
    should_run,
)
from firebrick.workflow.plan import Plan, PlannedJob, plan
from firebrick.workflow.problem import WorkflowError

_SHUTDOWN_PATIENCE: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Cause:
    """Why the run is being cancelled, and when that began."""

    cause: CancelCause
    at: float


class Run:
    """A `LiveRun`. Made by `start_run`."""

    def __init__(
        self, order: RunOrder, lender: Lender, settings: NodeSettings, journal: Journal, actions: ActionSource
    ) -> None:
        self.order = order
        self._actions = actions
        self._lender = lender
        self._settings = settings
        self._journal = journal
        self._began = time.monotonic()
        self._cause: CancelCause | None = None
        self._live: dict[str, Cancellation] = {}
        self._results: dict[str, JobResult] = {}
        self._outcomes: dict[str, JobOutcome] = {}
        self._done: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._shelf = ArtifactShelf(order.artifact_dir, self._emit, limit=settings.artifact_limit_mib << 20)

    # --- what a LiveRun does ---

    def events(self) -> AsyncIterator[Event]:
        return self._journal.read()

    def cancel(self, cause: CancelCause) -> None:
        if self._cause is None and not self._done.done():
            self._cause = cause
            for cancellation in list(self._live.values()):
                cancellation.request(cause)

    async def result(self) -> RunResult:
        return await asyncio.shield(self._done)

    # --- the run itself ---

    async def carry_out(self) -> None:
        """From the first event to the last, whatever happens; if cancelled, machines are ended first and the run concludes as cancelled."""
        timer = asyncio.get_running_loop().call_later(self.order.resources.timeout_s, self.cancel, CancelCause.TIMEOUT)
        message = ""
        try:
            planned = plan(self.order.workflow, contexts=self._contexts(), only=self.order.jobs)
            self._emit(self._started(planned))
            await self._run_all(planned)
        except WorkflowError as error:
            self._emit(RunStarted(at=time.time(), run=self.order.id, workflow=self.order.workflow.name, jobs=()))
            message = str(error)
        except asyncio.CancelledError:
            self.cancel(CancelCause.SHUTDOWN)
            raise
        finally:
            timer.cancel()
            self._finish(message)

    def _contexts(self, job: str = "") -> dict[str, Value]:
        github = github_context(run_facts(self.order), job=job, paths=guest_paths(self.order))
        return {"github": github, "inputs": {}, "vars": {}}

    def _started(self, planned: Plan) -> RunStarted:
        jobs = tuple(job.key for job in planned.jobs)
        return RunStarted(at=time.time(), run=self.order.id, workflow=self.order.workflow.name, jobs=jobs)

    async def _run_all(self, planned: Plan) -> None:
        """A task for each job of the workflow; each waits for those it needs."""
        over = {job_id: asyncio.Event() for job_id in planned.edges}
        async with asyncio.TaskGroup() as group:
            for job_id in planned.edges:
                group.create_task(self._run_job(planned, job_id, over), name=f"run-{self.order.id}-{job_id}")

    async def _run_job(self, planned: Plan, job_id: str, over: dict[str, asyncio.Event]) -> None:
        for need in planned.edges[job_id]:
            await over[need].wait()
        copies = planned.copies(job_id)
        turns = asyncio.Semaphore(copies[0].max_parallel if len(copies) > 1 else 1)
        outcomes: list[JobOutcome] = []
        async with asyncio.TaskGroup() as group:
            for copy in copies:
                group.create_task(
                    self._run_copy(planned, copy, turns, outcomes), name=f"run-{self.order.id}-{copy.key}"
                )
        self._outcomes[job_id] = merge(outcomes)
        over[job_id].set()

    async def _run_copy(
        self, planned: Plan, copy: PlannedJob, turns: asyncio.Semaphore, outcomes: list[JobOutcome]
    ) -> None:
        """One combination of a job, or the job itself where it has no matrix: its turn, its work, its report."""
        cancellation = self._live[copy.key] = Cancellation(self._patience)
        if self._cause is not None:
            cancellation.request(self._cause)
        began = time.monotonic()
        result = JobResult(conclusion=Conclusion.CANCELLED, message=cause_message(CancelCause.SHUTDOWN))
        try:
            async with turns:
                result = await self._decide(planned, copy, cancellation)
        finally:
            cancellation.close()
            self._live.pop(copy.key, None)
            self._report(copy, result, time.monotonic() - began)
        outcomes.append(self._outcome(planned, copy, result))
        if result.conclusion is Conclusion.FAILURE and outcomes[-1].result == FAILURE and copy.fail_fast:
            self._cancel_copies(planned, copy)

    @property
    def _patience(self) -> float:
        return self._settings.cancel_s

    async def _decide(self, planned: Plan, copy: PlannedJob, cancellation: Cancellation) -> JobResult:
        """Run it, skip it, or say why it cannot be decided."""
        log = JobLog(
            copy.key, self._emit, secrets=self.order.secrets.values(), limit=self._settings.log_limit_mib << 20
        )
        contexts = self._contexts(copy.job.id)
        cancelled = cancellation.cause is not None
        try:
            if not should_run(planned, copy, self._outcomes, contexts, cancelled=cancelled):
                return _not_run(cancellation)
            scope = job_scope(planned, copy, self._outcomes, contexts, cancelled=cancelled)
        except EvaluationError as error:
            log.node(f"The template is not valid. `if` of the job: {error}")
            return JobResult(conclusion=Conclusion.FAILURE, message=str(error))
        return await run_job(
            JobTask(
                order=self.order,
                planned=copy,
                scope=scope,
                lender=self._lender,
                settings=self._settings,
                shelf=self._shelf,
                actions=self._actions,
                log=log,
                cancellation=cancellation,
            )
        )

    def _outcome(self, planned: Plan, copy: PlannedJob, result: JobResult) -> JobOutcome:
        """What other jobs see of it: a failure that `continue-on-error` allows is a success."""
        if result.conclusion is Conclusion.FAILURE:
            scope = job_scope(planned, copy, self._outcomes, self._contexts())
            with contextlib.suppress(EvaluationError):
                if flag(copy.job.continue_on_error, scope):
                    return JobOutcome(SUCCESS, result.outputs)
        return JobOutcome(result.conclusion.value, result.outputs)

    def _cancel_copies(self, planned: Plan, failed: PlannedJob) -> None:
        for copy in planned.copies(failed.job.id):
            if copy.key in self._live:
                self._live[copy.key].request(CancelCause.MATRIX)

    def _report(self, copy: PlannedJob, result: JobResult, seconds: float) -> None:
        self._results[copy.key] = result
        self._emit(
            JobFinished(
                at=time.time(),
                job=copy.key,
                conclusion=result.conclusion,
                seconds=seconds,
                outputs=result.outputs,
                message=result.message,
            )
        )

    def _finish(self, message: str) -> None:
        seconds = time.monotonic() - self._began
        conclusion = self._conclusion(failed=bool(message))
        if not message and self._cause is not None:
            message = cause_message(self._cause)
        self._emit(
            RunFinished(at=time.time(), run=self.order.id, conclusion=conclusion, seconds=seconds, message=message)
        )
        self._journal.close()
        self._done.set_result(RunResult(conclusion=conclusion, seconds=seconds, jobs=self._results, message=message))

    def _conclusion(self, *, failed: bool) -> Conclusion:
        if failed or self._cause is CancelCause.TIMEOUT:
            return Conclusion.FAILURE
        result = run_result(self._outcomes.values())
        if self._cause is not None and result != FAILURE:
            return Conclusion.CANCELLED
        return Conclusion(result)

    def _emit(self, event: Event) -> None:
        self._journal.append(event)


def _not_run(cancellation: Cancellation) -> JobResult:
    if cancellation.cause is None:
        return JobResult(conclusion=Conclusion.SKIPPED)
    return JobResult(conclusion=Conclusion.CANCELLED, message=cause_message(cancellation.cause))


@asynccontextmanager
async def start_run(
    order: RunOrder, lender: Lender, settings: NodeSettings, journal: Journal, *, actions: ActionSource | None = None
) -> AsyncIterator[Run]:
    """The run, going on while the context lasts. Leaving it early ends the run's machines; the last event has come when it is left."""
    with journal:
        run = Run(order, lender, settings, journal, actions or NoActions())
        task = asyncio.create_task(run.carry_out(), name=f"run-{order.id}")
        try:
            yield run
        finally:
            task.cancel()
            await shielded(_ended(task))
        if not task.cancelled():
            task.result()


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
