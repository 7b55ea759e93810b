"""What a job or a workflow asks of those who run it, evaluated: its concurrency group, its environment, its name."""

from __future__ import annotations

from dataclasses import dataclass

from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.expression.value import to_text
from firebrick.workflow.syntax import Concurrency, Environment, Workflow
from firebrick.workflow.template import Template

_MAX_GROUP = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequest:
    """Membership in a concurrency group: one runs, others wait. `queue`: `single` or `max`."""

    group: str
    cancel_in_progress: bool = False
    queue: str = "single"


def group_request(concurrency: Concurrency | None, scope: Scope) -> GroupRequest | None:
    """None where nothing is asked for: an empty name is no group. Raises EvaluationError."""
    group = concurrency.group.text(scope) if concurrency is not None else ""
    if concurrency is None or not group:
        return None
    if len(group) > _MAX_GROUP:
        raise EvaluationError(f"The concurrency group may have {_MAX_GROUP} characters, and has {len(group)}")
    cancels = flag(concurrency.cancel_in_progress, scope)
    queue = concurrency.queue.text(scope) if concurrency.queue is not None else "single"
    if queue not in ("single", "max"):
        raise EvaluationError(f"Unexpected value '{queue[:100]}'")
    if cancels and queue == "max":
        raise EvaluationError("'queue: max' cannot be combined with 'cancel-in-progress: true'")
    return GroupRequest(group=group, cancel_in_progress=cancels, queue=queue)


def flag(template: Template | None, scope: Scope) -> bool:
    """`continue-on-error` and its like: false where there is none. Raises EvaluationError for what is neither true nor false."""
    if template is None:
        return False
    value = template.value(scope)
    if not isinstance(value, bool):
        raise EvaluationError(f"Unexpected value '{to_text(value)}'")
    return value


@dataclass(frozen=True, slots=True)
class EnvironmentName:
    """`url` is evaluated where that is possible before the job runs; else it is the text of the file, and `is_known` false."""

    name: str
    url: str = ""
    is_known: bool = True


_LATER = frozenset({"steps", "job", "runner", "env"})


def environment_name(environment: Environment | None, scope: Scope) -> EnvironmentName | None:
    """None where the job has none. Raises EvaluationError."""
    if environment is None:
        return None
    name = environment.name.text(scope)
    if environment.url is None:
        return EnvironmentName(name)
    if environment.url.contexts & _LATER:
        return EnvironmentName(name, environment.url.raw, is_known=False)
    return EnvironmentName(name, environment.url.text(scope))


def run_name(workflow: Workflow, scope: Scope) -> str:
    """The name of a run: `run-name` where it gives one, else empty, and the event's own title stands. Raises EvaluationError."""
    return workflow.run_name.text(scope).strip() if workflow.run_name is not None else ""
