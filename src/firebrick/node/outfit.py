"""What a job has: all that its run and its node give it, and on its machine, before its first step, the bench its steps work at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from firebrick.node.action.book import JobActions
from firebrick.node.action.source import ActionSource
from firebrick.node.action.use import Entry
from firebrick.node.cancel import Cancellation
from firebrick.node.container.companion import Companions
from firebrick.node.container.services import Served
from firebrick.node.context import architecture, guest_paths, run_facts
from firebrick.node.guest import Borrower, Guest, Lender, Loan
from firebrick.node.kept.keeper import Keeper
from firebrick.node.kept.resume import needs_of
from firebrick.node.kept.shelf import Ended
from firebrick.node.log import JobLog
from firebrick.node.order import RunOrder
from firebrick.node.results.offer import NodeResults
from firebrick.node.results.shelf import ArtifactShelf
from firebrick.node.run.fork import Trunk
from firebrick.node.scope import tenant_of
from firebrick.node.settings import NodeSettings
from firebrick.node.source import SourceReader
from firebrick.node.step.bench import Bench, Facts, Supplies
from firebrick.node.surroundings import Surroundings
from firebrick.node.tool.shelf import ToolShelf
from firebrick.workflow.context import runner_context
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.plan import PlannedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask:
    """Everything one job needs from its run and its node. `scope` is what the job's own expressions see, `trunk` the
    common part it shares with the other jobs of its matrix, `callers` what the jobs that call its workflow need."""

    order: RunOrder
    planned: PlannedJob
    scope: Scope
    lender: Lender
    settings: NodeSettings
    shelf: ArtifactShelf
    results: NodeResults | None
    actions: ActionSource
    log: JobLog
    cancellation: Cancellation
    trunk: Trunk | None = None
    tools: ToolShelf | None = None
    callers: tuple[Mapping[str, Ended], ...] = ()

    @property
    def borrower(self) -> Borrower:
        purpose = f"job {self.planned.key} of {self.order.id}"
        return Borrower(
            lender=self.lender,
            resources=self.order.resources,
            purpose=purpose,
            say=self.log.node,
            tenant=tenant_of(self.order),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """A job on its machine: `source` are the sources of its run, `actions` those its steps use, `around` the container and services it asked for,
    `served` the services as they run."""

    task: JobTask
    loan: Loan
    source: SourceReader
    actions: JobActions
    around: Surroundings
    served: Served

    def bench(self, entries: tuple[Entry, ...]) -> Bench:
        """Where these steps of the job work."""
        task = self.task
        companions = Companions(job=task.borrower, served=self.served, offer=partial(offered, task))
        supplies = Supplies(source=self.source, shelf=task.shelf, actions=self.actions, companions=companions)
        return Bench(
            order=task.order,
            job_id=task.planned.job.id,
            paths=guest_paths(task.order),
            guest=self.loan.guest,
            log=task.log,
            settings=task.settings,
            cancellation=task.cancellation,
            facts=self._facts(),
            supplies=supplies,
            keeper=self._keeper(),
            defaults=task.planned.job.defaults,
            entries=entries,
        )

    def _facts(self) -> Facts:
        task, around = self.task, self.around
        fixed = task.order.resources.fixed
        runner = runner_context(
            name=fixed.hostname if fixed is not None else self.loan.machine,
            arch=architecture(),
            paths=guest_paths(task.order),
            debug=task.log.debugging,
        )
        facts = around.facts(self.loan, self.served)
        return Facts(scope=task.scope, runner=runner, job=facts, image_env=around.env)

    def _keeper(self) -> Keeper:
        task, rerun = self.task, self.task.order.rerun
        return Keeper(
            settings=task.settings,
            keep=self.loan.keep,
            machine=self.loan.machine,
            title=task.planned.name,
            needs=needs_of(task.scope),
            callers=task.callers,
            begun_at=rerun.entry.record.step if rerun is not None else None,
        )


@asynccontextmanager
async def offered(task: JobTask, guest: Guest, *, needed: bool = True) -> AsyncIterator[Mapping[str, str]]:
    """The artifact and cache services in one machine of the job: the variables that lead there."""
    if task.results is None or not needed:
        yield {}
        return
    url = run_facts(task.order).server_url
    async with task.results.offered(guest, task.order, task.planned.key, server_url=url) as variables:
        task.log.masker.add(variables["ACTIONS_RUNTIME_TOKEN"])
        yield variables
