"""A workflow into the jobs of a run: which ones, in which order, one for each combination of a matrix. Pure: nothing runs here.

What can be known before anything runs is planned by `plan`; a job whose matrix asks for the outputs of others stays open until these have ended, and is
then expanded by `expand`. The jobs of a called workflow are a plan of their own, below their caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.expression.value import Value, to_number
from firebrick.workflow.graph import ancestors, in_order
from firebrick.workflow.matrix import expand_matrix, tree_value
from firebrick.workflow.permission import describe_excess, effective
from firebrick.workflow.policy import flag
from firebrick.workflow.problem import Position, Problem, WorkflowError
from firebrick.workflow.reference import Target
from firebrick.workflow.syntax import Job, Permissions, Strategy, Workflow
from firebrick.workflow.template import tree_templates

_MAX_NAME = 100
MAX_PLANNED = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The job that calls a workflow: its `key` and `name` begin those of all jobs of the called one. `target` is what it calls; `permissions` are
    what it has itself."""

    key: str
    name: str
    target: Target
    permissions: Permissions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """One job of a run: a job of the workflow, or one combination of its matrix.

    `key` is unique in the run and safe as a file name: the job's id, or `id.index` for a combination, after the key of the caller and a dot where
    the workflow is called. `name` is what people see: `caller / called` there. `matrix` is None without one; `suffix` is what the name ends with
    for it. At most `max_parallel` of the `total` combinations run at once; with `fail_fast` one that fails cancels the rest. `is_open` says that
    what it becomes depends on the jobs it needs: `expand` says it when they have ended. `permissions` None is what the repository gives by
    default."""

    key: str
    job: Job
    name: str
    matrix: Mapping[str, Value] | None = None
    suffix: str = ""
    index: int = 0
    total: int = 1
    fail_fast: bool = True
    max_parallel: int = 1
    is_open: bool = False
    permissions: Permissions | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the jobs (not keys) that end before this one begins."""
        return self.job.needs

    @property
    def contexts(self) -> dict[str, Value]:
        """The contexts `matrix` and `strategy`."""
        strategy: dict[str, Value] = {
            "fail-fast": self.fail_fast,
            "job-index": self.index,
            "job-total": self.total,
            "max-parallel": self.max_parallel,
        }
        return {"matrix": self.matrix, "strategy": strategy}


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of one workflow of a run, each after all it needs. `caller` is None for the run's own workflow."""

    workflow: Workflow
    jobs: tuple[PlannedJob, ...]
    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    caller: Caller | None = None

    def copies(self, job_id: str) -> tuple[PlannedJob, ...]:
        """The planned jobs of one job of the workflow, in the order of its matrix; one that is open stands for all it may become."""
        return tuple(planned for planned in self.jobs if planned.job.id == job_id)

    def ancestors(self, job_id: str) -> frozenset[str]:
        """Ids of all jobs this one needs, directly or not."""
        return frozenset(ancestors(job_id, self.edges))


def find_order(workflow: Workflow, only: Iterable[str] = ()) -> tuple[Job, ...]:
    """The jobs to run, each after all it needs: all, or `only` those and what they need. Raises WorkflowError for a name that is no job."""
    wanted: set[str] = set()
    edges = {name: job.needs for name, job in workflow.jobs.items()}
    for name in only:
        if name not in workflow.jobs:
            problem = Problem(
                workflow.path, Position(), f"The workflow has no job '{name}'.", f"one of {', '.join(workflow.jobs)}"
            )
            raise WorkflowError((problem,), hint="Name a job by its key under `jobs`.")
        wanted |= {name, *ancestors(name, edges)}
    return tuple(workflow.jobs[name] for name in in_order(edges) if not wanted or name in wanted)


def plan(
    workflow: Workflow,
    *,
    contexts: Mapping[str, Value],
    only: Iterable[str] = frozenset(),
    caller: Caller | None = None,
) -> Plan:
    """The jobs of one workflow of a run. `contexts` are those known before anything of it runs: `github`, `inputs`, `vars`. A job whose matrix
    or name asks for `needs` stays open.

    Raises WorkflowError with what is wrong with every matrix that cannot be expanded, and with permissions beyond those of the caller."""
    scope = Scope(contexts)
    planned: list[PlannedJob] = []
    problems: list[Problem] = []
    order = find_order(workflow, only)
    for job in order:
        if excess := _excess(workflow, job, caller):
            problems.append(Problem(workflow.path, job.position, excess))
        try:
            planned.extend((_open(workflow, job, caller),) if is_open(job) else expand(workflow, job, scope, caller))
            if len(planned) > MAX_PLANNED:
                problems.append(
                    Problem(workflow.path, job.position, f"The run would have more than {MAX_PLANNED} jobs")
                )
                break
        except EvaluationError as error:
            place = _first_position(job.strategy) or job.position
            problems.append(
                Problem(workflow.path, place, f"Error when evaluating 'strategy' for job '{job.id}'. {error}")
            )
    if problems:
        raise WorkflowError(tuple(problems), hint="Correct these jobs.")
    return Plan(workflow, tuple(planned), {job.id: job.needs for job in order}, caller)


def is_open(job: Job) -> bool:
    """Whether what the job becomes depends on the outputs or results of those it needs."""
    asked = (
        *(job.strategy.templates if job.strategy is not None else ()),
        *((job.name,) if job.name is not None else ()),
    )
    return any("needs" in template.contexts for template in asked)


def _open(workflow: Workflow, job: Job, caller: Caller | None) -> PlannedJob:
    name = job.name.raw if job.name is not None and job.name.is_literal else job.id
    return PlannedJob(
        key=_below(caller, job.id),
        job=job,
        name=_called_name(caller, name),
        is_open=True,
        permissions=_permissions(workflow, job, caller),
    )


def _below(caller: Caller | None, key: str) -> str:
    return key if caller is None else f"{caller.key}.{key}"


def _called_name(caller: Caller | None, name: str) -> str:
    return name if caller is None else f"{caller.name} / {name}"


def _permissions(workflow: Workflow, job: Job, caller: Caller | None) -> Permissions | None:
    return effective(workflow.permissions, job.permissions, caller.permissions if caller is not None else None)


def _excess(workflow: Workflow, job: Job, caller: Caller | None) -> str:
    """A job of a called workflow may do no more than its caller, whoever let it come so far."""
    return (
        describe_excess(job.id, _permissions(workflow, job, caller), caller.permissions) if caller is not None else ""
    )


def expand(workflow: Workflow, job: Job, scope: Scope, caller: Caller | None = None) -> tuple[PlannedJob, ...]:
    """The planned jobs of one job. `scope` has the contexts a strategy may use; of an open job with `needs`. Raises EvaluationError."""
    permissions = _permissions(workflow, job, caller)
    strategy = job.strategy.resolved(scope) if job.strategy is not None else None
    matrix = strategy.matrix if strategy is not None else None
    if strategy is None or matrix is None:
        one = PlannedJob(key=_below(caller, job.id), job=job, name="", permissions=permissions)
        return (replace(one, name=_called_name(caller, _name(one, scope))),)
    combinations = expand_matrix(tree_value(matrix, scope))
    total = len(combinations)
    fail_fast = flag(strategy.fail_fast, scope) if strategy.fail_fast is not None else True
    max_parallel = _max_parallel(strategy, scope, total)
    copies = (
        PlannedJob(
            key=_below(caller, f"{job.id}.{index}"),
            job=job,
            name="",
            matrix=combination.values,
            suffix=combination.suffix,
            index=index,
            total=total,
            fail_fast=fail_fast,
            max_parallel=max_parallel,
            permissions=permissions,
        )
        for index, combination in enumerate(combinations)
    )
    return tuple(replace(copy, name=_called_name(caller, _name(copy, scope))) for copy in copies)


def _max_parallel(strategy: Strategy, scope: Scope, total: int) -> int:
    if strategy.max_parallel is None:
        return total
    number = to_number(strategy.max_parallel.value(scope))
    return int(number) if 1 <= number < total else total


def _name(planned: PlannedJob, scope: Scope) -> str:
    """The name people see. One with an expression in it is taken as it comes out, others end with the values of the matrix."""
    job = planned.job
    within = Scope({**scope.contexts, **planned.contexts}, scope.functions)
    name = (job.name.text(within) if job.name is not None else "") or job.id
    if planned.matrix and (job.name is None or job.name.is_literal):
        name = f"{name} {planned.suffix}".rstrip()
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


def _first_position(strategy: Strategy | None) -> Position | None:
    """Of the matrix, or of the expression that gives it."""
    if strategy is None:
        return None
    written = strategy.expression if strategy.matrix is None else strategy.matrix
    return None if written is None else min((each.position for each in tree_templates(written)), default=None)
