"""Going on with a job from a snapshot of its machine, instead of beginning it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from firebrick.machine import Snapshot
from firebrick.node.kept import checkpoint
from firebrick.node.kept.shelf import Ended, Entry
from firebrick.node.step.bench import Bench
from firebrick.workflow.expression.expression import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Where to: `step` is the first that runs, from 0; `state` the digest of what lies in the machine; `words` say so, and are empty where the
    log of the job need not (a copy of a matrix); `sha` is the commit the run had then."""

    snapshot: Snapshot
    image: str
    step: int
    state: str
    words: str = ""
    sha: str = ""

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """From a checkpoint. Raises SnapshotError."""
        record = entry.record
        return cls(
            snapshot=entry.snapshot,
            image=record.image,
            step=record.step,
            state=record.state,
            words=f"{record.run} before step {record.step + 1}",
            sha=record.sha,
        )

    async def go_on(self, bench: Bench) -> None:
        """Make the bench what it was. Raises NodeError, AgentError."""
        state = await checkpoint.collect(bench.guest, self.state)
        await checkpoint.clear(bench.guest)
        await checkpoint.apply(state, bench)
        if self.words:
            bench.log.node(
                f"Going on from {self.words}: the steps before it are those of that run, and are not run again."
            )
            if self.sha != bench.order.source.sha:
                bench.log.node(
                    f"What is in the workspace came from {self.sha or 'no commit'}; the sources are at another one now."
                )
            if bench.facts.job.get("services"):
                bench.log.node("The services of the job begin anew: what they held is not in the checkpoint.")


def needs_of(scope: Scope) -> Mapping[str, Ended]:
    """How the jobs ended that a job needs, from what its expressions see."""
    needs = scope.contexts.get("needs")
    return msgspec.convert(needs, dict[str, Ended]) if isinstance(needs, Mapping) else {}
