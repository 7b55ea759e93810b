"""What the courses of a run have in common: where its jobs get things from, what is under way, how it is cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field

from firebrick.node.action.source import ActionSource
from firebrick.node.cancel import Cancellation
from firebrick.node.context import guest_paths, run_facts
from firebrick.node.contract import JobResult
from firebrick.node.event import CancelCause
from firebrick.node.guest import Lender
from firebrick.node.log import Emit
from firebrick.node.order import RunOrder
from firebrick.node.results.offer import NodeResults
from firebrick.node.results.shelf import ArtifactShelf
from firebrick.node.run.turnstile import Turnstile, group_key
from firebrick.node.scope import tenant_of
from firebrick.node.settings import NodeSettings
from firebrick.node.tool.shelf import ToolShelf
from firebrick.workflow.called import Calls
from firebrick.workflow.context import github_context
from firebrick.workflow.expression.expression import EvaluationError, Value
from firebrick.workflow.plan import MAX_PLANNED


@dataclass(kw_only=True)
class Shared:
    """What all courses of a run have in common. `results` are the services its actions may use, `tools` those of tool caches; `jobs` is how each
    has ended, and `live` those under way, both by key, callers too among these; `cancellation` is that of the run; no job's log shows any of
    `secrets`, whether it is given them or not."""

    lender: Lender
    settings: NodeSettings
    shelf: ArtifactShelf
    emit: Emit
    actions: ActionSource
    turnstile: Turnstile
    results: NodeResults | None = None
    tools: ToolShelf | None = None
    calls: Calls = field(default_factory=Calls)
    jobs: dict[str, JobResult] = field(default_factory=dict)
    live: dict[str, Cancellation] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()
    cancellation: Cancellation = field(default_factory=lambda: Cancellation(0.0))
    planned: int = 0

    def count(self, jobs: int) -> None:
        """Raises EvaluationError where the run would have too many."""
        self.planned += jobs
        if self.planned > MAX_PLANNED:
            raise EvaluationError(f"The run would have more than {MAX_PLANNED} jobs")

    def cancel(self, key: str, cause: CancelCause) -> None:
        """Ask a job to end, and all that it calls."""
        for other, cancellation in list(self.live.items()):
            if other == key or other.startswith(f"{key}."):
                cancellation.request(cause)


def order_contexts(order: RunOrder, job: str = "") -> dict[str, Value]:
    """The contexts known before a job has its machine: `github`, `inputs`, `vars`."""
    github = github_context(run_facts(order), job=job, paths=guest_paths(order))
    return {"github": github, "inputs": order.inputs, "vars": dict(order.variables)}


def order_group(order: RunOrder, name: str) -> str:
    """The concurrency group of this name, which is of where the repository is, not of what it calls itself."""
    return group_key(tenant_of(order), name)
