"""The jobs of a run before anything runs: everything that is known is evaluated, what depends on other jobs stays as the file has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from firebrick.workflow.called import Calls
from firebrick.workflow.event.inputs import InputError, call_inputs, read_inputs
from firebrick.workflow.expression.expression import EvaluationError, Scope, Value
from firebrick.workflow.expression.value import to_text
from firebrick.workflow.outcome import FAILURE, SKIPPED, SUCCESS, JobOutcome, job_scope, runs_on_labels
from firebrick.workflow.permission import granted
from firebrick.workflow.plan import MAX_PLANNED, Caller, Plan, PlannedJob, plan
from firebrick.workflow.policy import environment_name, group_request
from firebrick.workflow.problem import Problem, WorkflowError
from firebrick.workflow.reference import OWN
from firebrick.workflow.syntax import Call, Concurrency, Environment, Job, Permissions, RunDefaults, Workflow
from firebrick.workflow.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedJob:
    """One job as it will run, as far as that is known. Texts with `${{ }}` in them could not be evaluated yet.

    `runs` is None where the other jobs decide. An `is_open` job becomes several, or gets its name, when those it needs have ended. `uses` is the
    workflow it calls, where that is not here to be looked into, or is not called."""

    key: str
    name: str
    needs: tuple[str, ...] = ()
    condition: str = ""
    runs: bool | None = True
    is_open: bool = False
    uses: str = ""
    runs_on: tuple[str, ...] = ()
    matrix: Mapping[str, Value] | None = None
    fail_fast: bool = True
    max_parallel: int = 1
    timeout_minutes: str = ""
    cancel_timeout_minutes: str = ""
    defaults: Mapping[str, str] = field(default_factory=dict)
    continue_on_error: str = ""
    concurrency: Mapping[str, Value] | None = None
    environment: Mapping[str, Value] | None = None
    permissions: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, object]:
        matrix = dict(self.matrix) if self.matrix is not None else None
        return {
            "key": self.key,
            "name": self.name,
            "needs": list(self.needs),
            "if": self.condition or None,
            "runs": self.runs,
            "open": self.is_open,
            "uses": self.uses or None,
            "runs-on": list(self.runs_on),
            "matrix": matrix,
            "strategy": None if matrix is None else {"fail-fast": self.fail_fast, "max-parallel": self.max_parallel},
            "timeout-minutes": self.timeout_minutes or None,
            "cancel-timeout-minutes": self.cancel_timeout_minutes or None,
            "defaults": dict(self.defaults),
            "continue-on-error": self.continue_on_error or None,
            "concurrency": self.concurrency,
            "environment": self.environment,
            "permissions": self.permissions,
        }


def preview(workflow: Workflow, calls: Calls, contexts: Mapping[str, Value]) -> tuple[PreviewedJob, ...]:
    """The jobs of a run, those of called workflows in the place of their callers. `contexts` are `github`, `inputs` and `vars`.

    Raises WorkflowError with what cannot be planned."""
    jobs = _Preview(calls).of(plan(workflow, contexts=contexts), contexts)
    found: list[PreviewedJob] = []
    for job in jobs:
        if len(found) >= MAX_PLANNED:
            raise WorkflowError((_too_many(workflow),))
        found.append(job)
    return tuple(found)


def _too_many(workflow: Workflow) -> Problem:
    first = next(iter(workflow.jobs.values()))
    return Problem(workflow.path, first.position, f"The run would have more than {MAX_PLANNED} jobs")


@dataclass(frozen=True, slots=True)
class _Preview:
    calls: Calls = field(default_factory=Calls)

    def of(self, planned: Plan, contexts: Mapping[str, Value]) -> Iterator[PreviewedJob]:
        for copy in planned.jobs:
            runs = _runs(planned, copy, contexts)
            call = copy.job.call
            if call is not None and runs is not False and not copy.is_open:
                called = self._called(planned, copy, call, contexts)
                if called is not None:
                    for job in self.of(*called):
                        yield _below(planned, copy, runs, job)
                    continue
            yield _described(planned, copy, contexts, runs)

    def _called(
        self, planned: Plan, copy: PlannedJob, call: Call, contexts: Mapping[str, Value]
    ) -> tuple[Plan, Mapping[str, Value]] | None:
        """The plan of the called workflow and its contexts; None where it is not here, or its inputs are not known yet."""
        here = planned.caller.target if planned.caller is not None else OWN
        if not self.calls.knows(here, call) or _asks_later(*call.with_.entries.values(), call.with_.expression):
            return None
        target, workflow = self.calls.callee(here, call)
        scope = Scope({**contexts, **copy.contexts})
        caller = Caller(key=copy.key, name=copy.name, target=target, permissions=copy.permissions)
        try:
            given = call.with_.expression.value(scope) if call.with_.expression is not None else None
            values = given if isinstance(given, Mapping) else {n: t.value(scope) for n, t in call.with_.entries.items()}
            inside = {**contexts, "inputs": call_inputs(read_inputs(workflow.on["workflow_call"]), values, scope)}
            return plan(workflow, contexts=inside, caller=caller), inside
        except (EvaluationError, InputError) as error:
            problem = Problem(_file(planned), call.position, f"cannot call the workflow {call.uses}: {error}")
            raise WorkflowError((problem,), hint="Correct the call, or the called workflow.") from error


def _below(planned: Plan, caller: PlannedJob, runs: bool | None, job: PreviewedJob) -> PreviewedJob:
    """A job of a called workflow begins when what its caller needs has ended, and runs only where that does."""
    needs = job.needs or _needs(planned, caller)
    return replace(job, needs=needs, runs=job.runs if runs or job.runs is False else None)


def _needs(planned: Plan, copy: PlannedJob) -> tuple[str, ...]:
    prefix = "" if planned.caller is None else f"{planned.caller.key}."
    return tuple(f"{prefix}{need}" for need in copy.needs)


def _file(planned: Plan) -> str:
    return planned.workflow.path


def _asks_later(*templates: Template | None) -> bool:
    return any(template is not None and "needs" in template.contexts for template in templates)


def _runs(planned: Plan, copy: PlannedJob, contexts: Mapping[str, Value]) -> bool | None:
    """Whether the job runs, where that is the same however those it needs end."""
    condition = copy.job.if_.expression
    if "needs" in condition.contexts and copy.job.needs:
        return None
    ancestors = planned.ancestors(copy.job.id)
    answers: set[bool] = set()
    for result in (SUCCESS, FAILURE, SKIPPED) if ancestors else (SUCCESS,):
        outcomes = dict.fromkeys(ancestors, JobOutcome(result))
        try:
            answers.add(copy.job.if_.holds(job_scope(planned, copy, outcomes, contexts)))
        except EvaluationError as error:
            problem = Problem(
                _file(planned), copy.job.if_.position, f"Error when evaluating 'if' for job '{copy.job.id}'. {error}"
            )
            raise WorkflowError((problem,), hint="Correct the condition.") from error
    return answers.pop() if len(answers) == 1 else None


def _described(planned: Plan, copy: PlannedJob, contexts: Mapping[str, Value], runs: bool | None) -> PreviewedJob:
    job, scope = copy.job, Scope({**contexts, **copy.contexts})
    show = _Shown(planned, copy, scope)
    return PreviewedJob(
        key=copy.key,
        name=copy.name,
        needs=_needs(planned, copy),
        condition=job.if_.raw,
        runs=runs,
        is_open=copy.is_open,
        uses=job.call.uses if job.call is not None else "",
        runs_on=show.labels(job),
        matrix=copy.matrix,
        fail_fast=copy.fail_fast,
        max_parallel=copy.max_parallel,
        timeout_minutes=show.text("timeout-minutes", job.timeout_minutes),
        cancel_timeout_minutes=show.text("cancel-timeout-minutes", job.cancel_timeout_minutes),
        defaults=show.defaults(planned.workflow.defaults, job.defaults),
        continue_on_error=show.text("continue-on-error", job.continue_on_error),
        concurrency=show.concurrency(job.concurrency),
        environment=show.environment(job.environment),
        permissions=_granted(copy.permissions),
    )


def _granted(permissions: Permissions | None) -> Mapping[str, str] | None:
    return granted(permissions) if permissions is not None else None


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a job's templates come to, each where it can be evaluated."""

    planned: Plan
    copy: PlannedJob
    scope: Scope

    def _later(self, templates: Sequence[Template | None]) -> bool:
        """An open job has no matrix yet."""
        asked = {name for one in templates if one is not None for name in one.contexts}
        return "needs" in asked or (self.copy.is_open and bool(asked & {"matrix", "strategy"}))

    def _evaluated(self, key: str, ask: Callable[[], Value]) -> Value:
        try:
            return ask()
        except EvaluationError as error:
            job = self.copy.job
            message = f"Error when evaluating '{key}' for job '{job.id}'. {error}"
            raise WorkflowError((Problem(_file(self.planned), job.position, message),)) from error

    def text(self, key: str, template: Template | None) -> str:
        if template is None:
            return ""
        if self._later([template]):
            return template.raw
        return to_text(self._evaluated(key, lambda: template.text(self.scope)))

    def defaults(self, workflow: RunDefaults, job: RunDefaults) -> dict[str, str]:
        """Of `run` steps, the job's before the workflow's. What asks for `env` is known in the job's machine only."""
        both = {
            "shell": job.shell or workflow.shell,
            "working-directory": job.working_directory or workflow.working_directory,
        }
        return {
            name: template.raw if "env" in template.contexts else self.text(name, template)
            for name, template in both.items()
            if template is not None
        }

    def labels(self, job: Job) -> tuple[str, ...]:
        if not job.runs_on or self._later(job.runs_on):
            return tuple(label.raw for label in job.runs_on)
        labels = self._evaluated("runs-on", lambda: list(runs_on_labels(job, self.scope)))
        return tuple(map(to_text, labels)) if isinstance(labels, list) else ()

    def concurrency(self, asked: Concurrency | None) -> Mapping[str, Value] | None:
        if asked is None:
            return None
        cancels = asked.cancel_in_progress
        if self._later([asked.group, cancels, asked.queue]):
            queue = asked.queue.raw if asked.queue is not None else "single"
            return _group(asked.group.raw, cancels.raw if cancels is not None else False, queue)
        return self._mapping("concurrency", lambda: evaluated_concurrency(asked, self.scope))

    def environment(self, asked: Environment | None) -> Mapping[str, Value] | None:
        if asked is None:
            return None
        if self._later([asked.name, asked.url]):
            return {"name": asked.name.raw, "url": asked.url.raw if asked.url is not None else ""}
        return self._mapping("environment", lambda: _environment(asked, self.scope))

    def _mapping(self, key: str, ask: Callable[[], Value]) -> Mapping[str, Value] | None:
        value = self._evaluated(key, ask)
        return value if isinstance(value, Mapping) else None


def evaluated_concurrency(asked: Concurrency | None, scope: Scope) -> Mapping[str, Value] | None:
    """`group`, `cancel-in-progress` and `queue`; None where there is none. Raises EvaluationError."""
    group = group_request(asked, scope)
    return _group(group.group, group.cancel_in_progress, group.queue) if group is not None else None


def _group(name: str, cancels: Value, queue: str) -> dict[str, Value]:
    return {"group": name, "cancel-in-progress": cancels, "queue": queue}


def _environment(asked: Environment, scope: Scope) -> Value:
    found = environment_name(asked, scope)
    return {"name": found.name, "url": found.url} if found is not None else None
