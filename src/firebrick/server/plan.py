"""What is to run on a tree: the workflow named in the request, else its command, else the repository's workflow, else what its files suggest.

Of a request with an event its filters decide: each workflow of the repository is asked, and what does not start is told with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.confined import OutsideError, names_beneath, read_beneath
from firebrick.server.errors import PlanError
from firebrick.server.record import BuildRequest, Verdict
from firebrick.workflow.detect import detect, from_command
from firebrick.workflow.event.event import Event
from firebrick.workflow.event.filter import decide
from firebrick.workflow.event.inputs import Given, InputError, dispatch_inputs, read_inputs
from firebrick.workflow.expression.value import Value
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.reference import DIRECTORIES, SUFFIXES
from firebrick.workflow.syntax import Workflow
from firebrick.workflow.yaml import MAX_BYTES

DISPATCH: Final = "workflow_dispatch"
_MOST_WORKFLOWS: Final = 100
_LONGEST_REASON: Final = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """The workflow to run, and globs of what to keep of each job's workspace; None where the event starts none. `payload` and `inputs` are what its
    expressions see of the event, `verdicts` what became of each workflow that was asked."""

    workflow: Workflow | None
    collect: tuple[str, ...] = ()
    inputs: Mapping[str, Value] = field(default_factory=dict)
    payload: Mapping[str, object] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    @property
    def reason(self) -> str:
        """Why nothing starts."""
        if len(self.verdicts) == 1:
            return self.verdicts[0].reason
        return f"the event starts none of the repository's {len(self.verdicts)} workflows"


def make_plan(tree: Path, request: BuildRequest, event: Event | None = None) -> Plan:
    """The plan for a tree. It is hostile: nothing outside it is read, links included.

    Raises PlanError where there is nothing to run, or inputs do not fit, WorkflowError for a file with mistakes."""
    if event is not None:
        return _started(tree, request, event)
    if request.workflow:
        return Plan(read_named(tree, request.workflow), request.artifacts)
    if request.command:
        return Plan(from_command(request.command), request.artifacts)
    found = _of_repository(tree)
    return Plan(found, request.artifacts) if found else _detected(tree, request)


def workflow_paths(tree: Path) -> list[str]:
    """The workflow files of a repository, by name: those of the first directory that has any. A name that is no text, or has control characters, is
    that of none: it is kept, told and compared. Raises PlanError where there are too many."""
    for directory in DIRECTORIES:
        names = (name for name in names_beneath(tree, directory) if name.isprintable())
        found = [f"{directory}/{name}" for name in names if name.endswith(SUFFIXES)]
        if len(found) > _MOST_WORKFLOWS:
            raise PlanError(f"the repository has more than {_MOST_WORKFLOWS} workflows, and not one is named")
        if found:
            return found
    return []


def _started(tree: Path, request: BuildRequest, event: Event) -> Plan:
    """The first workflow the event starts. A file with mistakes starts nothing; where nothing else does, they are what is said."""
    paths = [request.workflow] if request.workflow else workflow_paths(tree)
    if not paths:
        raise PlanError("the repository has no workflow that an event could start")
    verdicts: list[Verdict] = []
    started: list[Workflow] = []
    wrong: list[PlanError | WorkflowError] = []
    for path in paths:
        try:
            workflow = read_named(tree, path)
        except (PlanError, WorkflowError) as error:
            wrong.append(error)
            verdicts.append(Verdict(path=path, name=path, starts=False, reason=str(error)[:_LONGEST_REASON]))
            continue
        decision = decide(workflow.on, event)
        reason = decision.reason[:_LONGEST_REASON]
        verdicts.append(Verdict(path=path, name=workflow.name[:256], starts=decision.starts, reason=reason))
        started += [workflow] if decision.starts else []
    if not started:
        if wrong:
            raise wrong[0]
        return Plan(None, verdicts=tuple(verdicts))
    given = _inputs(started[0], request, event)
    payload = {**event.payload, "inputs": given.texts} if event.name == DISPATCH else event.payload
    return Plan(started[0], request.artifacts, inputs=given.typed, payload=payload, verdicts=tuple(verdicts))


def _inputs(workflow: Workflow, request: BuildRequest, event: Event) -> Given:
    if event.name != DISPATCH:
        return Given()
    try:
        return dispatch_inputs(read_inputs(workflow.on[DISPATCH]), request.inputs)
    except InputError as error:
        raise PlanError(f"the inputs do not fit {workflow.path}:\n{error}", hint=error.hint) from error


def read_named(tree: Path, path: str) -> Workflow:
    """Raises PlanError where it cannot be read, WorkflowError for a file with mistakes."""
    try:
        return read_workflow(read_beneath(tree, path, MAX_BYTES), path)
    except OutsideError as error:
        raise PlanError(f"cannot read the workflow: {error}") from error
    except OSError as error:
        raise PlanError(
            f"the repository has no workflow {path}", hint="The path is relative to the repository's root."
        ) from error


def _of_repository(tree: Path) -> Workflow | None:
    """The first workflow by name that runs on a push, or else the first; of the first directory that has any."""
    first: Workflow | None = None
    for workflow in _each(tree):
        if "push" in workflow.on:
            return workflow
        first = first or workflow
    return first


def _each(tree: Path) -> Iterator[Workflow]:
    for path in workflow_paths(tree):
        yield read_named(tree, path)


def _detected(tree: Path, request: BuildRequest) -> Plan:
    found = detect(names_beneath(tree, ""), lambda name: _text(tree, name))
    if found is None:
        raise PlanError(
            "the repository has no workflow, and none of the files that would say how to build it",
            hint="Add a workflow in .github/workflows, or give a `command` with the request.",
        )
    return Plan(found.workflow, request.artifacts or found.collect)


def _text(tree: Path, name: str) -> str | None:
    try:
        return read_beneath(tree, name, MAX_BYTES).decode(errors="replace")
    except OSError:
        return None
