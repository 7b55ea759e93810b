"""A job in an environment: what it is given there, or why it does not begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from firebrick.node.contract import JobResult
from firebrick.node.event import Conclusion
from firebrick.node.order import RunOrder
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.expression.value import fold
from firebrick.workflow.syntax import Job


@dataclass(frozen=True, slots=True)
class Entered:
    """The order and what the job's expressions see, as its environment has them; or with `result`, that it does not begin."""

    order: RunOrder
    scope: Scope
    result: JobResult | None = None


def find_environment(order: RunOrder, job: Job, scope: Scope) -> Entered:
    """Raises EvaluationError. An environment the order says nothing of gives nothing and keeps nobody out."""
    name = job.environment.name.text(scope) if job.environment is not None else ""
    environment = next((one for known, one in order.environments.items() if fold(known) == fold(name)), None)
    if environment is None:
        return Entered(order, scope)
    if environment.refusal:
        return Entered(order, scope, JobResult(conclusion=Conclusion.FAILURE, message=environment.refusal))
    if environment.waits:
        waiting = JobResult(conclusion=Conclusion.WAITING, message=environment.waits, environment=name)
        return Entered(order, scope, waiting)
    variables = _over(order.variables, environment.variables)
    given = replace(order, secrets=_over(order.secrets, environment.secrets), variables=variables)
    return Entered(given, scope.with_contexts(vars=dict(variables)))


def _over(weak: Mapping[str, str], strong: Mapping[str, str]) -> dict[str, str]:
    """Both, and of a name in both, whatever its case, the strong one's."""
    names = {fold(name) for name in strong}
    return {**{name: value for name, value in weak.items() if fold(name) not in names}, **strong}
