"""A workflow into the jobs of a run: which ones, in which order, one for each combination of a matrix. Pure: nothing runs here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from firebrick.workflow.expression import EvaluationError, Scope
from firebrick.workflow.graph import ancestors, in_order
from firebrick.workflow.matrix import expand_matrix, matrix_suffix, tree_value
from firebrick.workflow.problem import Position, Problem, WorkflowError
from firebrick.workflow.syntax import Job, Strategy, Workflow
from firebrick.workflow.template import Template, TemplateTree
from firebrick.workflow.value import Value, to_number

_MAX_NAME = 100
MAX_PLANNED = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """One job of a run: a job of the workflow, or one combination of its matrix.

    `key` is unique in the plan and safe as a file name: the job's id, or `id.index` for a combination. `name` is what people see.
    `matrix` is None without one. At most `max_parallel` of the `total` combinations run at once; with `fail_fast` one that fails cancels the rest."""

    key: str
    job: Job
    name: str
    matrix: Mapping[str, Value] | None = None
    index: int = 0
    total: int = 1
    fail_fast: bool = True
    max_parallel: int = 1

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
    """The jobs of a run, each after all it needs."""

    workflow: Workflow
    jobs: tuple[PlannedJob, ...]
    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def copies(self, job_id: str) -> tuple[PlannedJob, ...]:
        """The planned jobs of one job of the workflow, in the order of its matrix."""
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


def plan(workflow: Workflow, *, contexts: Mapping[str, Value], only: Iterable[str] = frozenset()) -> Plan:
    """The jobs of one run. `contexts` are those known before anything runs: `github`, `inputs`, `vars`.

    Raises WorkflowError with what is wrong with every matrix that cannot be expanded."""
    scope = Scope(contexts)
    planned: list[PlannedJob] = []
    problems: list[Problem] = []
    order = find_order(workflow, only)
    for job in order:
        try:
            planned.extend(expand(job, scope))
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
        raise WorkflowError(tuple(problems), hint="Correct the `strategy` of these jobs.")
    return Plan(workflow, tuple(planned), {job.id: job.needs for job in order})


def expand(job: Job, scope: Scope) -> tuple[PlannedJob, ...]:
    """The planned jobs of one job. `scope` has the contexts a strategy may use. Raises EvaluationError."""
    matrix = job.strategy.matrix if job.strategy is not None else None
    if job.strategy is None or matrix is None:
        return (PlannedJob(key=job.id, job=job, name=_name(job, scope, None)),)
    if "needs" in _contexts(matrix) and "needs" not in scope.contexts:
        raise EvaluationError("A matrix that depends on what other jobs put out is not supported yet")
    combinations = expand_matrix(tree_value(matrix, scope))
    total = len(combinations)
    fail_fast = job.strategy.fail_fast.flag(scope) if job.strategy.fail_fast is not None else True
    max_parallel = _max_parallel(job.strategy, scope, total)
    copies = (
        PlannedJob(
            key=f"{job.id}.{index}",
            job=job,
            name=job.id,
            matrix=combination,
            index=index,
            total=total,
            fail_fast=fail_fast,
            max_parallel=max_parallel,
        )
        for index, combination in enumerate(combinations)
    )
    return tuple(
        replace(copy, name=_name(job, Scope({**scope.contexts, **copy.contexts}), copy.matrix)) for copy in copies
    )


def _max_parallel(strategy: Strategy, scope: Scope, total: int) -> int:
    if strategy.max_parallel is None:
        return total
    number = to_number(strategy.max_parallel.value(scope))
    return int(number) if 1 <= number < total else total


def _name(job: Job, scope: Scope, matrix: Mapping[str, Value] | None) -> str:
    """The name people see. One with an expression in it is taken as it comes out, others end with the values of the matrix."""
    name = job.name.text(scope) if job.name is not None else ""
    if not name:
        name = job.id
    if matrix and (job.name is None or job.name.is_literal):
        name = f"{name} {matrix_suffix(matrix)}".rstrip()
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


def _templates(tree: TemplateTree) -> Iterable[Template]:
    if isinstance(tree, Template):
        yield tree
    elif tree is not None:
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _templates(item)


def _contexts(tree: TemplateTree) -> frozenset[str]:
    return frozenset(name for template in _templates(tree) for name in template.contexts)


def _first_position(strategy: Strategy | None) -> Position | None:
    if strategy is None or strategy.matrix is None:
        return None
    return min((template.position for template in _templates(strategy.matrix)), default=None)
