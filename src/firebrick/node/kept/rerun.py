"""A run of one job of an earlier run, from a checkpoint on: what that makes of the plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

from firebrick.node.kept.shelf import Entry
from firebrick.workflow.outcome import JobOutcome
from firebrick.workflow.plan import Plan, PlannedJob
from firebrick.workflow.problem import Problem, WorkflowError
from firebrick.workflow.syntax import Job, Step
from firebrick.workflow.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A run of one job of another run from a checkpoint on. `command` is the script its first step has instead of its own, or None."""

    entry: Entry
    command: str | None = None

    @property
    def job(self) -> str:
        """The key of the planned job."""
        return self.entry.record.job

    def narrow(self, plan: Plan) -> Plan:
        """The plan of the job alone, or of the one that calls its workflow, which waits for none.

        Raises WorkflowError where the workflow has no such step any more."""
        planned = next((each for each in plan.jobs if self.is_of(each)), None)
        if planned is None:
            raise _changed(plan, f"The workflow has no job '{self.job}' any more")
        if planned.job.call is not None:
            return replace(plan, jobs=(planned,), edges={planned.job.id: ()})
        if self.entry.record.index >= len(planned.job.steps):
            raise _changed(plan, f"The job '{self.job}' has no step {self.entry.record.step + 1} any more")
        return replace(plan, jobs=(replace(planned, job=self._changed(plan, planned)),), edges={planned.job.id: ()})

    def is_of(self, planned: PlannedJob) -> bool:
        """Whether it is the job, or what it may become or the workflow it calls has it."""
        has_others = planned.is_open or planned.job.call is not None
        return planned.key == self.job or (has_others and self.job.startswith(f"{planned.key}."))

    def outcomes(self, depth: int) -> dict[str, JobOutcome]:
        """How the jobs ended that this one needs, or, in one of the workflows around its own, the one that calls: `depth` callers are around that."""
        record = self.entry.record
        needs = record.callers[depth] if depth < len(record.callers) else record.needs
        return {name: JobOutcome(ended.result, ended.outputs) for name, ended in needs.items()}

    def _changed(self, plan: Plan, planned: PlannedJob) -> Job:
        job, at = planned.job, self.entry.record.index
        if self.command is None:
            return job
        if job.steps[at].run is None:
            place = job.steps[at].position
            message = f"Step {self.entry.record.step + 1} of the job '{self.job}' has no script that --command could stand for"
            raise WorkflowError(
                (Problem(plan.workflow.path, place, message, "a step with `run`"),), hint="Leave --command out."
            )
        return replace(job, steps=(*job.steps[:at], _with_command(job.steps[at], self.command), *job.steps[at + 1 :]))


def _with_command(step: Step, command: str) -> Step:
    assert step.run is not None
    return replace(step, run=Template(command, step.run.position, (command,)))


def _changed(plan: Plan, message: str) -> WorkflowError:
    problem = Problem(plan.workflow.path, plan.workflow.jobs[plan.jobs[0].job.id].position, message)
    return WorkflowError((problem,), hint="Run the workflow from its beginning.")
