"""The jobs of one workflow of a run, each when those it needs are done, several at once. A job that calls a workflow has a course of its own for
that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from firebrick.node.cancel import Cancellation, cause_message
from firebrick.node.context import debugging
from firebrick.node.contract import JobResult
from firebrick.node.earlier import Standing
from firebrick.node.errors import StepError
from firebrick.node.event import CancelCause, Conclusion, JobFinished, JobsPlanned
from firebrick.node.job import run_job
from firebrick.node.kept.resume import needs_of
from firebrick.node.kept.shelf import Ended
from firebrick.node.log import JobLog
from firebrick.node.order import RunOrder
from firebrick.node.outfit import JobTask
from firebrick.node.run.call import called_order
from firebrick.node.run.environment import find_environment
from firebrick.node.run.fork import Trunk, open_trunk
from firebrick.node.run.shared import Shared, order_contexts, order_group
from firebrick.workflow.event.inputs import InputError
from firebrick.workflow.expression.expression import EvaluationError, Scope, Value
from firebrick.workflow.outcome import (
    FAILURE,
    SUCCESS,
    WAITING,
    JobOutcome,
    call_outputs,
    job_scope,
    merge,
    run_result,
    should_run,
    timeout_s,
)
from firebrick.workflow.plan import Plan, PlannedJob, expand, plan
from firebrick.workflow.policy import GroupRequest, flag, group_request
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.syntax import Call, Workflow

# A job with `always()` or `cancelled()` in its `if` still runs when this is why the run is cancelled.
_OUTLIVED: Final = frozenset({CancelCause.USER, CancelCause.CONCURRENCY})
_MISTAKES: Final = (EvaluationError, InputError, WorkflowError)


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a job ended. The jobs of a called workflow have reported themselves: their caller does not."""

    result: JobResult
    reported: bool = False


class Course:
    """One workflow at work. `order` is the run's, with this workflow and its secrets; `above` is the cancellation of the calling job, `held` are
    the concurrency groups it is in, `callers` how the jobs ended that it and those around it need. With `whole` none of its jobs stays as an
    earlier attempt has left it."""

    def __init__(
        self,
        shared: Shared,
        order: RunOrder,
        planned: Plan,
        *,
        above: Cancellation | None = None,
        held: frozenset[str] = frozenset(),
        callers: tuple[Mapping[str, Ended], ...] = (),
        whole: bool = False,
    ) -> None:
        self.outcomes: dict[str, JobOutcome] = {}
        self.standing = Standing(order.earlier, whole=whole)
        self._shared = shared
        self._order = order
        self._plan = planned
        self._above = above
        self._held = held
        self._callers = callers
        self._copies: dict[str, tuple[PlannedJob, ...]] = {}
        self._trunks: dict[str, Trunk | None] = {}
        rerun = order.rerun
        self._known = (
            self.outcomes if rerun is None else rerun.outcomes(len(callers))
        )  # what jobs see of those they need

    async def carry_out(self) -> None:
        """A task for each job of the workflow; each waits for those it needs. All have reported when this returns."""
        over = {job_id: asyncio.Event() for job_id in self._plan.edges}
        async with asyncio.TaskGroup() as group:
            for job_id in self._plan.edges:
                group.create_task(self._run_job(job_id, over), name=f"run-{self._order.id}-{job_id}")

    async def _run_job(self, job_id: str, over: Mapping[str, asyncio.Event]) -> None:
        needs = self._plan.edges[job_id]
        for need in needs:
            await over[need].wait()
        self.standing.begin(job_id, needs)
        if any(self.outcomes[need].result == WAITING for need in needs):
            self._hold(job_id)
        elif copies := self._expanded(job_id):
            await self._run_copies(job_id, copies)
        over[job_id].set()

    async def _run_copies(self, job_id: str, copies: tuple[PlannedJob, ...]) -> None:
        """All combinations of a job but those that stay as they ended in an earlier attempt."""
        stayed = {copy.key: outcome for copy in copies if (outcome := self.standing.outcome(copy)) is not None}
        outcomes = [await self._stay(copy, stayed[copy.key]) for copy in copies if copy.key in stayed]
        copies = self._copies[job_id] = tuple(copy for copy in copies if copy.key not in stayed)
        if copies:
            if copies[0].job.call is None:
                self.standing.move(job_id)
            turns = asyncio.Semaphore(copies[0].max_parallel if len(copies) > 1 else 1)
            may_fork = self._order.resources.fixed is None  # a fork is somebody else than what it is a fork of
            trunk = open_trunk(copies, self._shared.lender, may_fork=may_fork)
            async with trunk as self._trunks[job_id], asyncio.TaskGroup() as group:
                for copy in copies:
                    name = f"run-{self._order.id}-{copy.key}"
                    group.create_task(self._run_copy(copy, turns, outcomes), name=name)
        self.outcomes[job_id] = merge(outcomes)

    async def _stay(self, copy: PlannedJob, ended: JobOutcome) -> JobOutcome:
        """A job that is as an earlier attempt has left it: what it stored is there, and it is reported with the others."""
        files = [file for file in self._order.earlier.files if file.job == copy.key]
        result = JobResult(conclusion=Conclusion(ended.result), outputs=ended.outputs)
        self._log(copy).node(f"{copy.name} is as an earlier attempt has left it.")
        try:
            await self._shared.shelf.adopt(files, self._order.earlier.directory)
        except (StepError, OSError) as error:
            result = self._failed(copy, f"cannot take over what an earlier attempt of the job has stored: {error}")
        self._report(copy, result, 0.0)
        return self._outcome(copy, result)

    def _hold(self, job_id: str) -> None:
        """A job that needs one which waits for its environment waits as well."""
        for copy in self._plan.copies(job_id):
            self._end(copy, JobResult(conclusion=Conclusion.WAITING))

    # --- what a job becomes ---

    def _expanded(self, job_id: str) -> tuple[PlannedJob, ...]:
        """The copies of a job whose needs have ended. None of one that was open and does not run; its outcome is known then."""
        copies = self._plan.copies(job_id)
        if not copies[0].is_open:
            return copies
        try:
            return self._closed(copies[0])
        except EvaluationError as error:
            result = self._failed(copies[0], f"Error when evaluating 'strategy' for job '{job_id}'. {error}")
        self._end(copies[0], result)
        return ()

    def _closed(self, planned: PlannedJob) -> tuple[PlannedJob, ...]:
        above = self._cancelled_above
        contexts = self._contexts(planned.job.id)
        if not self._should_run(planned, contexts, cancelled=above is not None):
            self._end(planned, _not_run(above))
            return ()
        scope = job_scope(self._plan, planned, self._known, contexts)
        copies = expand(self._order.workflow, planned.job, scope, self._plan.caller)
        if (rerun := self._order.rerun) is not None:
            copies = tuple(copy for copy in copies if rerun.is_of(copy))
        self._shared.count(len(copies) - 1)
        keys = tuple(copy.key for copy in copies)
        if keys != (planned.key,):
            self._shared.emit(JobsPlanned(at=time.time(), job=planned.key, jobs=keys))
        return copies

    def _end(self, planned: PlannedJob, result: JobResult) -> None:
        self._report(planned, result, 0.0)
        self.outcomes[planned.job.id] = JobOutcome(result.conclusion.value)

    # --- one copy ---

    async def _run_copy(self, copy: PlannedJob, turns: asyncio.Semaphore, outcomes: list[JobOutcome]) -> None:
        """One combination of a job, or the job itself where it has no matrix: its turn, its work, its report."""
        cancellation = self._shared.live[copy.key] = Cancellation(self._patience(copy))
        if (above := self._cancelled_above) is not None:
            cancellation.follow(above)
        began = time.monotonic()
        ended = _Ended(JobResult(conclusion=Conclusion.CANCELLED, message=cause_message(CancelCause.SHUTDOWN)))
        try:
            async with turns:
                ended = await self._decide(copy, cancellation)
        finally:
            cancellation.close()
            self._shared.live.pop(copy.key, None)
            if not ended.reported:
                self._report(copy, ended.result, time.monotonic() - began)
        outcomes.append(self._outcome(copy, ended.result))
        if outcomes[-1].result == FAILURE and copy.fail_fast:
            for other in self._copies[copy.job.id]:
                self._shared.cancel(other.key, CancelCause.MATRIX)

    @property
    def _cancelled_above(self) -> Cancellation | None:
        """What asks that whatever begins now ends at once: of the run, or of the calling job."""
        both = (self._shared.cancellation, self._above)
        return next((one for one in both if one is not None and one.cause is not None), None)

    def _patience(self, copy: PlannedJob) -> float:
        """How long what still runs after a cancellation has; what cannot be evaluated fails the job later, where it says so."""
        default = self._shared.settings.cancel_s
        try:
            scope = job_scope(self._plan, copy, self.outcomes, self._contexts(copy.job.id))
            return timeout_s(copy.job.cancel_timeout_minutes, scope, default)
        except EvaluationError:
            return default

    async def _decide(self, copy: PlannedJob, cancellation: Cancellation) -> _Ended:
        """Run it, skip it, or say why it cannot be decided."""
        contexts = self._contexts(copy.job.id)
        cancelled = cancellation.cause is not None
        try:
            if not self._should_run(copy, contexts, cancelled=cancelled):
                return _Ended(_not_run(cancellation))
            scope = job_scope(self._plan, copy, self._known, contexts, cancelled=cancelled)
        except EvaluationError as error:
            return _Ended(self._failed(copy, f"The template is not valid. `if` of the job: {error}"))
        with self._still_running(copy, cancellation) as granted:
            try:
                environment = find_environment(self._order, copy.job, scope)
            except EvaluationError as error:
                return _Ended(self._failed(copy, f"The template is not valid. `environment` of the job: {error}"))
            if environment.result is not None:
                return _Ended(self._turned_away(copy, environment.result))
            return await self._admit(copy, environment.scope, granted, environment.order)

    def _should_run(self, planned: PlannedJob, contexts: Mapping[str, Value], *, cancelled: bool) -> bool:
        """A job that is gone on with has run: what its `if` was asked then is not asked again. Raises EvaluationError."""
        if self._order.rerun is not None:
            return True
        return should_run(self._plan, planned, self._known, contexts, cancelled=cancelled)

    @contextmanager
    def _still_running(self, copy: PlannedJob, cancellation: Cancellation) -> Iterator[Cancellation]:
        """What a job goes by that runs although the run is being cancelled, because its `if` says so: it begins as if nothing was, and
        ends when the time for such work is over. Others go by their own."""
        if cancellation.cause not in _OUTLIVED:
            yield cancellation
            return
        loop = asyncio.get_running_loop()
        left = cancellation.began + self._shared.settings.cancel_s - loop.time()
        granted = self._shared.live[copy.key] = Cancellation(0.0)
        end = partial(granted.request, cancellation.cause, message=cancellation.message)
        timer = loop.call_later(max(0.0, left), end)
        try:
            yield granted
        finally:
            timer.cancel()
            granted.close()

    def _turned_away(self, copy: PlannedJob, result: JobResult) -> JobResult:
        self._log(copy).node(result.message)
        return result

    async def _admit(self, copy: PlannedJob, scope: Scope, cancellation: Cancellation, order: RunOrder) -> _Ended:
        """The work of a job that is to run, when it has its place in its concurrency group. `order` is the course's, as the job's environment has it."""
        try:
            asked = group_request(copy.job.concurrency, scope)
            timeout_s(copy.job.cancel_timeout_minutes, scope, 0)
        except EvaluationError as error:
            return _Ended(self._failed(copy, f"The template is not valid. {error}"))
        async with self._admitted(asked, copy, cancellation, self._held, "job") as held:
            if held is None:
                return _Ended(_not_run(cancellation))
            if copy.job.call is not None:
                return await self._call(copy, copy.job.call, scope, cancellation, held)
            return _Ended(await run_job(self._task(copy, scope, cancellation, order)))

    def _task(self, copy: PlannedJob, scope: Scope, cancellation: Cancellation, order: RunOrder) -> JobTask:
        return JobTask(
            order=order,
            planned=copy,
            scope=scope,
            lender=self._shared.lender,
            settings=self._shared.settings,
            shelf=self._shared.shelf,
            results=self._shared.results,
            tools=self._shared.tools,
            actions=self._shared.actions,
            log=self._log(copy),
            cancellation=cancellation,
            trunk=self._trunks.get(copy.job.id),
            callers=self._callers,
        )

    @asynccontextmanager
    async def _admitted(
        self,
        asked: GroupRequest | None,
        copy: PlannedJob,
        cancellation: Cancellation,
        held: frozenset[str],
        part: str,
    ) -> AsyncIterator[frozenset[str] | None]:
        """Be in a concurrency group, if one is asked for: the groups held then, or None where the job was cancelled before its turn came."""
        if asked is None or (cancellation.cause is not None):
            yield held
            return
        key = order_group(self._order, asked.group)
        if key in held:
            self._log(copy).node(
                f"A deadlock for the concurrency group '{asked.group}': what called this job is in it."
            )
            cancellation.request(CancelCause.CONCURRENCY)
            yield None
            return
        turnstile = self._shared.turnstile
        if not turnstile.is_free(key):
            self._log(copy).node(f"Waiting for the concurrency group '{asked.group}'.")
        async with turnstile.pass_through(
            key,
            asked,
            f"{self._order.id}/{copy.key}/{part}",
            cancel=lambda: self._shared.cancel(copy.key, CancelCause.CONCURRENCY),
            cancelled=cancellation.requested,
        ) as admitted:
            yield held | {key} if admitted else None

    # --- calls ---

    async def _call(
        self, copy: PlannedJob, call: Call, scope: Scope, cancellation: Cancellation, held: frozenset[str]
    ) -> _Ended:
        """The workflow a job calls, whose jobs are jobs of this run."""
        try:
            caller, order = called_order(self._order, self._plan, copy, call, scope, self._shared.calls)
            contexts = order_contexts(order)
            planned = plan(order.workflow, contexts=contexts, caller=caller)
            if order.rerun is not None:
                planned = order.rerun.narrow(planned)
            self._shared.count(len(planned.jobs) - 1)
            asked = group_request(order.workflow.concurrency, Scope(contexts))
        except _MISTAKES as error:
            return _Ended(self._failed(copy, f"cannot call the workflow {call.uses}: {error}"))
        jobs = tuple(job.key for job in planned.jobs)
        self._shared.emit(JobsPlanned(at=time.time(), job=copy.key, jobs=jobs))
        async with self._admitted(asked, copy, cancellation, held, "workflow") as within:
            callers, due = (*self._callers, needs_of(scope)), self.standing.is_due(copy.job.id)
            course = Course(
                self._shared, order, planned, above=cancellation, held=within or held, callers=callers, whole=due
            )
            if within is None:
                course.give_up(cancellation)
            else:
                await course.carry_out()
        if not course.standing.is_whole:
            self.standing.move(copy.job.id)
        return self._called_end(copy, course, order.workflow, contexts)

    def _called_end(self, copy: PlannedJob, course: Course, called: Workflow, contexts: Mapping[str, Value]) -> _Ended:
        conclusion = Conclusion(run_result(course.outcomes.values()))
        try:
            outputs = call_outputs(called, course.outcomes, contexts)
        except EvaluationError as error:
            return _Ended(self._failed(copy, f"The outputs of the called workflow cannot be evaluated: {error}"))
        return _Ended(JobResult(conclusion=conclusion, outputs=outputs), reported=True)

    def give_up(self, cancellation: Cancellation) -> None:
        """Report every job as one that did not run."""
        for planned in self._plan.jobs:
            self._end(planned, _not_run(cancellation))

    # --- what is said ---

    def _contexts(self, job: str) -> dict[str, Value]:
        return order_contexts(self._order, job)

    def _log(self, copy: PlannedJob) -> JobLog:
        secrets = self._shared.secrets.union(self._order.secrets.values())
        limit = self._shared.settings.log_limit_mib << 20
        return JobLog(
            copy.key,
            self._shared.emit,
            secrets=secrets,
            limit=limit,
            debugging=debugging(self._order.secrets, dict(self._order.variables)),
        )

    def _failed(self, copy: PlannedJob, message: str) -> JobResult:
        log = self._log(copy)
        log.node(message)
        return JobResult(conclusion=Conclusion.FAILURE, message=log.mask(message))

    def _outcome(self, copy: PlannedJob, result: JobResult) -> JobOutcome:
        """What other jobs see of it: a failure that `continue-on-error` allows is a success."""
        if result.conclusion is Conclusion.FAILURE:
            scope = job_scope(self._plan, copy, self.outcomes, self._contexts(copy.job.id))
            with contextlib.suppress(EvaluationError):
                if flag(copy.job.continue_on_error, scope):
                    return JobOutcome(SUCCESS, result.outputs)
        return JobOutcome(result.conclusion.value, result.outputs)

    def _report(self, copy: PlannedJob, result: JobResult, seconds: float) -> None:
        self._shared.jobs[copy.key] = result
        self._shared.emit(
            JobFinished(
                at=time.time(),
                job=copy.key,
                conclusion=result.conclusion,
                seconds=seconds,
                outputs=result.outputs,
                message=result.message,
            )
        )


def _not_run(cancellation: Cancellation | None) -> JobResult:
    if cancellation is None or cancellation.cause is None:
        return JobResult(conclusion=Conclusion.SKIPPED)
    return JobResult(conclusion=Conclusion.CANCELLED, message=cancellation.message)
