"""One run: planned, let in by its concurrency group, its jobs carried out until the last; then how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial

from firebrick.node.action.source import ActionSource, NoActions
from firebrick.node.cancel import run_limit
from firebrick.node.contract import RunResult
from firebrick.node.errors import NodeError, told
from firebrick.node.event import CancelCause, Conclusion, Event, LogLine, RunFinished, RunStarted
from firebrick.node.guest import Lender
from firebrick.node.journal import Journal
from firebrick.node.log import NODE_STEP
from firebrick.node.order import RunOrder
from firebrick.node.results.offer import NodeResults
from firebrick.node.results.shelf import ArtifactShelf
from firebrick.node.run.callee import load_called
from firebrick.node.run.course import Course
from firebrick.node.run.shared import Shared, order_contexts, order_group
from firebrick.node.run.turnstile import Turnstile
from firebrick.node.settings import NodeSettings
from firebrick.node.tool.shelf import ToolShelf
from firebrick.task import alongside, race
from firebrick.workflow.called import Calls
from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.outcome import FAILURE, JobOutcome, run_result
from firebrick.workflow.plan import Plan, plan
from firebrick.workflow.policy import GroupRequest, group_request, run_name
from firebrick.workflow.problem import WorkflowError


class Run:
    """A `LiveRun`. Made by `start_run`."""

    def __init__(
        self,
        order: RunOrder,
        lender: Lender,
        settings: NodeSettings,
        journal: Journal,
        *,
        actions: ActionSource,
        turnstile: Turnstile,
        results: NodeResults | None,
        tools: ToolShelf | None,
    ) -> None:
        self.order = order
        self._journal = journal
        self._began = time.monotonic()
        self._has_started = False
        self._name = ""
        self._timer: asyncio.TimerHandle | None = None
        self._outcomes: dict[str, JobOutcome] = {}
        self._done: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        shelf = ArtifactShelf(order.artifact_dir, self._emit, limit=settings.artifact_limit_mib << 20)
        self._shared = Shared(
            lender=lender,
            settings=settings,
            shelf=shelf,
            emit=self._emit,
            actions=actions,
            turnstile=turnstile,
            results=results,
            tools=tools,
            secrets=frozenset(_all_secrets(order)),
        )

    # --- what a LiveRun does ---

    def events(self) -> AsyncIterator[Event]:
        return self._journal.read()

    def cancel(self, cause: CancelCause) -> None:
        self._cancel(cause)

    def _cancel(self, cause: CancelCause, message: str = "") -> None:
        if self._shared.cancellation.cause is None and not self._done.done():
            self._shared.cancellation.request(cause, message=message)
            for cancellation in list(self._shared.live.values()):
                cancellation.request(cause, message=message)

    async def result(self) -> RunResult:
        return await asyncio.shield(self._done)

    # --- the run itself ---

    async def carry_out(self) -> None:
        """From the first event to the last, whatever happens; if cancelled, machines are ended first and the run concludes as cancelled."""
        message = ""
        try:
            with self._limited():
                await self._whole()
        except (WorkflowError, NodeError, EvaluationError) as error:
            message = told(error) if isinstance(error, NodeError) else str(error)
        except asyncio.CancelledError:
            self.cancel(CancelCause.SHUTDOWN)
            raise
        except Exception as error:
            # Jobs that were not told are no success. Whoever started the run is told the rest.
            message = f"Firebrick has a mistake of its own: {type(error).__name__}"
            raise
        finally:
            self._finish(message)

    def _watched(self) -> AbstractAsyncContextManager[None]:
        """What clients store in this run is among its artifacts."""
        results = self._shared.results
        return nullcontext() if results is None else results.watched(self.order, self._shared.shelf)

    async def _whole(self) -> None:
        """What it calls, its plan, its jobs. Raises WorkflowError, NodeError, EvaluationError."""
        calls = await self._called()
        planned, asked = self._planned()
        self._start(tuple(job.key for job in planned.jobs))
        async with self._watched():
            if calls is None:
                self._give_up(planned)
            else:
                self._shared.calls = calls
                await self._in_turn(planned, asked)

    async def _called(self) -> Calls | None:
        """All that the workflow calls, fetched from wherever it is; None where the run is cancelled first, or its time is over.

        Raises WorkflowError, NodeError."""
        loading = load_called(self.order, self._shared.actions, self._shared.settings)
        called = await race(loading, self._shared.cancellation.requested.wait(), name=f"run-{self.order.id}-called")
        return called if isinstance(called, Calls) else None

    def _planned(self) -> tuple[Plan, GroupRequest | None]:
        """The plan of the run, and the concurrency group it wants to be in. Raises WorkflowError, EvaluationError."""
        contexts = order_contexts(self.order)
        self._name = run_name(self.order.workflow, Scope(contexts))
        planned = plan(self.order.workflow, contexts=contexts, only=self.order.jobs)
        if self.order.rerun is not None:
            planned = self.order.rerun.narrow(planned)
        self._shared.count(len(planned.jobs))
        return planned, group_request(self.order.workflow.concurrency, Scope(contexts))

    def _start(self, jobs: tuple[str, ...]) -> None:
        self._has_started = True
        workflow = self.order.workflow.name
        self._emit(RunStarted(at=time.time(), run=self.order.id, workflow=workflow, jobs=jobs, name=self._name))

    async def _in_turn(self, planned: Plan, asked: GroupRequest | None) -> None:
        """All jobs, when the run has its place in its concurrency group; none where another has taken that. It waits no longer than it may
        then take."""
        if asked is None:
            await self._run_all(planned, frozenset())
            return
        key = order_group(self.order, asked.group)
        turnstile = self._shared.turnstile
        if not turnstile.is_free(key):
            self._say(planned, f"The run waits for the concurrency group '{asked.group}'.")
        async with turnstile.pass_through(
            key,
            asked,
            self.order.id,
            cancel=lambda: self.cancel(CancelCause.CONCURRENCY),
            cancelled=self._shared.cancellation.requested,
        ) as admitted:
            if admitted:
                with self._limited():
                    await self._run_all(planned, frozenset({key}))
                return
        self._give_up(planned)

    def _give_up(self, planned: Plan) -> None:
        course = Course(self._shared, self.order, planned)
        course.give_up(self._shared.cancellation)
        self._outcomes = course.outcomes

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """The time of the run begins, anew where it has begun before."""
        if self._timer is not None:
            self._timer.cancel()
        limit = self.order.resources.timeout_s
        end = partial(self._cancel, CancelCause.TIMEOUT, run_limit(limit))
        timer = self._timer = asyncio.get_running_loop().call_later(limit, end)
        try:
            yield
        finally:
            timer.cancel()

    async def _run_all(self, planned: Plan, held: frozenset[str]) -> None:
        course = Course(self._shared, self.order, planned, held=held)
        self._outcomes = course.outcomes
        await course.carry_out()

    def _say(self, planned: Plan, text: str) -> None:
        """A word on the run itself, which is told with its first job."""
        self._emit(LogLine(at=time.time(), job=planned.jobs[0].key, step=NODE_STEP, stream="node", text=text))

    def _finish(self, message: str) -> None:
        if not self._has_started:
            self._start(())
        seconds = time.monotonic() - self._began
        cause = self._shared.cancellation.cause
        conclusion = self._conclusion(failed=bool(message))
        if not message and cause is not None:
            message = self._shared.cancellation.message
        self._emit(
            RunFinished(at=time.time(), run=self.order.id, conclusion=conclusion, seconds=seconds, message=message)
        )
        self._shared.cancellation.close()
        self._journal.close()
        jobs = self._shared.jobs
        self._done.set_result(RunResult(conclusion=conclusion, seconds=seconds, jobs=jobs, message=message))

    def _conclusion(self, *, failed: bool) -> Conclusion:
        cause = self._shared.cancellation.cause
        if failed or cause is CancelCause.TIMEOUT:
            return Conclusion.FAILURE
        result = run_result(self._outcomes.values())
        if cause is not None and result != FAILURE:
            return Conclusion.CANCELLED
        return Conclusion(result)

    def _emit(self, event: Event) -> None:
        self._journal.append(event)


def _all_secrets(order: RunOrder) -> Iterator[str]:
    yield from order.secrets.values()
    for environment in order.environments.values():
        yield from environment.secrets.values()


@asynccontextmanager
async def start_run(
    order: RunOrder,
    lender: Lender,
    settings: NodeSettings,
    journal: Journal,
    *,
    actions: ActionSource | None = None,
    turnstile: Turnstile | None = None,
    results: NodeResults | None = None,
    tools: ToolShelf | None = None,
) -> AsyncIterator[Run]:
    """The run, going on while the context lasts. Leaving it early ends the run's machines; the last event has come when it is left.

    Actions and called workflows of other repositories come from `actions`. Runs with the same `turnstile` share concurrency groups;
    `results` are the services its actions may use, `tools` what its jobs find in their tool caches, and add to."""
    with journal:
        run = Run(
            order,
            lender,
            settings,
            journal,
            actions=actions or NoActions(),
            turnstile=turnstile or Turnstile(),
            results=results,
            tools=tools,
        )
        async with alongside(run.carry_out(), name=f"run-{order.id}") as task:
            yield run
        if not task.cancelled():
            task.result()
