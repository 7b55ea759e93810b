"""What follows from how jobs and steps ended: whether the next one runs, what it sees of the others, and how the whole ends.

Results are `success`, `failure`, `cancelled` and `skipped`; `waiting` is that of a job whose environment does not let it in yet, and of those that
need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from firebrick.workflow.command.masker import Masker
from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget
from firebrick.workflow.expression.value import Value, fold, to_number, to_text
from firebrick.workflow.plan import Plan, PlannedJob
from firebrick.workflow.policy import flag as flag  # steps ask here, too
from firebrick.workflow.syntax import Job, Workflow
from firebrick.workflow.template import Template

MAX_OUTPUTS = 1 << 20
LONGEST_S = 366 * 24 * 3600.0

SUCCESS, FAILURE, CANCELLED, SKIPPED, WAITING = "success", "failure", "cancelled", "skipped", "waiting"


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job ended, as `needs.<id>` shows it: a failure that `continue-on-error` allowed is a success."""

    result: str
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended: `outcome` before and `conclusion` after `continue-on-error`."""

    outcome: str
    conclusion: str
    outputs: Mapping[str, str] = field(default_factory=dict)


def merge(copies: Sequence[JobOutcome]) -> JobOutcome:
    """The outcome of a job from those of its combinations, in the order they ended: of outputs, the last one that is not empty."""
    results = [copy.result for copy in copies]
    result = next((one for one in (WAITING, FAILURE, CANCELLED, SUCCESS) if one in results), SKIPPED)
    outputs: dict[str, str] = {}
    for copy in copies:
        outputs.update({name: value for name, value in copy.outputs.items() if value or name not in outputs})
    return JobOutcome(result, outputs)


def run_result(outcomes: Iterable[JobOutcome]) -> str:
    """How a run ended: a failure of any job is one of the run; a run of which nothing ran was skipped."""
    return merge(tuple(outcomes)).result


def needs_context(job: Job, outcomes: Mapping[str, JobOutcome]) -> Value:
    return {
        need: {"result": outcomes[need].result, "outputs": dict(outcomes[need].outputs)}
        for need in job.needs
        if need in outcomes
    }


def job_scope(
    plan: Plan,
    planned: PlannedJob,
    outcomes: Mapping[str, JobOutcome],
    contexts: Mapping[str, Value],
    *,
    cancelled: bool = False,
) -> Scope:
    """What expressions of a job see before its machine is there. `outcomes` are by job id, of every job that has ended; `contexts` are
    `github`, `inputs` and `vars`; `cancelled` says that the run is being cancelled.

    All ancestors count: `success()` is false after a skipped or failed one even where the jobs between succeeded, `failure()` is true after
    any that failed."""
    everyone = plan.ancestors(planned.job.id)

    def asked(names: Sequence[Value]) -> list[str]:
        wanted = {fold(to_text(name)) for name in names}
        among = [need for need in everyone if fold(need) in wanted] if names else everyone
        return [outcomes[need].result for need in among if need in outcomes]

    functions = {
        "always": lambda _: True,
        "cancelled": lambda _: cancelled,
        "success": lambda names: not cancelled and all(result == SUCCESS for result in asked(names)),
        "failure": lambda names: not cancelled and FAILURE in asked(names),
    }
    known = {name: contexts.get(name) for name in ("github", "inputs", "vars")}
    return Scope({**known, **planned.contexts, "needs": needs_context(planned.job, outcomes)}, functions)


def should_run(
    plan: Plan,
    planned: PlannedJob,
    outcomes: Mapping[str, JobOutcome],
    contexts: Mapping[str, Value],
    *,
    cancelled: bool = False,
) -> bool:
    """Whether a job whose needs have all ended runs, by its `if`. Raises EvaluationError."""
    return planned.job.if_.holds(job_scope(plan, planned, outcomes, contexts, cancelled=cancelled))


def runs_on_labels(job: Job, scope: Scope) -> tuple[str, ...]:
    """The labels of `runs-on`; an expression may give several. Raises EvaluationError, also where there is none."""
    labels: list[str] = []
    for template in job.runs_on:
        value = template.value(scope)
        if isinstance(value, Mapping):
            value = value.get("labels")
        labels += [to_text(item) for item in value] if isinstance(value, list | tuple) else [to_text(value)]
    labels = [label for label in labels if label]
    if not labels:
        raise EvaluationError(f"The job '{job.id}' has no label in `runs-on`")
    return tuple(labels)


def step_scope(scope: Scope, *, status: str, contexts: Mapping[str, Value]) -> Scope:
    """What expressions of a step see: the job's scope with `env`, `steps`, `job`, `runner`, `secrets` in `contexts` and the status functions
    of a step, which ask for the status of the job so far."""
    functions: dict[str, Callable[[Sequence[Value]], Value]] = {
        "always": lambda _: True,
        "success": lambda _: status == SUCCESS,
        "failure": lambda _: status == FAILURE,
        "cancelled": lambda _: status == CANCELLED,
    }
    return Scope({**scope.contexts, **contexts}, {**scope.functions, **functions})


def steps_context(outcomes: Mapping[str, StepOutcome]) -> Value:
    """The context `steps`, of those that ended and have an id."""
    return {
        name: {"outputs": dict(step.outputs), "outcome": step.outcome, "conclusion": step.conclusion}
        for name, step in outcomes.items()
        if name
    }


def job_outputs(job: Job, scope: Scope, masker: Masker) -> tuple[dict[str, str], tuple[str, ...]]:
    """The outputs of a job that ended, and warnings: an empty one is not set, one with a secret in it is withheld. Raises EvaluationError, also
    where they are more than 1 MiB: they stay until the run ends."""
    outputs: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in _bounded(job.outputs.texts(scope)).items():
        if value and masker.mask(value) != value:
            warnings.append(f"Skip output '{name}' since it may contain secret.")
        elif value:
            outputs[name] = value
    return outputs, tuple(warnings)


def call_outputs(called: Workflow, outcomes: Mapping[str, JobOutcome], contexts: Mapping[str, Value]) -> dict[str, str]:
    """The outputs of a called workflow whose jobs have all ended: what `needs.<caller>.outputs` shows. Raises EvaluationError."""
    trigger = called.on.get("workflow_call")
    declared = trigger.get("outputs") if isinstance(trigger, Mapping) else None
    jobs: Value = {
        name: {"result": outcome.result, "outputs": dict(outcome.outputs)} for name, outcome in outcomes.items()
    }
    scope = Scope({**contexts, "jobs": jobs})
    outputs: dict[str, str] = {}
    budget = Budget(MAX_TOGETHER)
    for name, entry in declared.items() if isinstance(declared, Mapping) else ():
        value = entry.get("value") if isinstance(entry, Mapping) else None
        if isinstance(value, Template) and (text := value.text(scope, budget)):
            outputs[name] = text
    return _bounded(outputs)


def _bounded(outputs: dict[str, str]) -> dict[str, str]:
    if sum(map(len, outputs.values())) > MAX_OUTPUTS:
        raise EvaluationError(f"The outputs of a job may be {MAX_OUTPUTS >> 10} KiB together")
    return outputs


def timeout_s(minutes: Template | None, scope: Scope, default_s: float) -> float:
    """`timeout-minutes` in seconds; fractions count, and more than a year is a year. Raises EvaluationError for what is no number of minutes."""
    if minutes is None:
        return default_s
    number = to_number(minutes.value(scope))
    if not number > 0:
        raise EvaluationError(f"'timeout-minutes' must be a number above 0, and is '{minutes.raw}'")
    return min(number * 60, LONGEST_S)
