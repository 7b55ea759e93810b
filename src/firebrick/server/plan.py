"""What is to run on a tree: the workflow named in the request, else its command, else the repository's workflow, else what its files suggest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.confined import OutsideError, names_beneath, read_beneath
from firebrick.server.errors import PlanError
from firebrick.server.record import BuildRequest
from firebrick.workflow.detect import detect, from_command
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.syntax import Workflow
from firebrick.workflow.yaml import MAX_BYTES

_DIRECTORIES: Final = (".forgejo/workflows", ".github/workflows")
_SUFFIXES: Final = (".yml", ".yaml")


@dataclass(frozen=True, slots=True)
class Plan:
    """The workflow to run, and globs of what to keep of each job's workspace."""

    workflow: Workflow
    collect: tuple[str, ...]


def make_plan(tree: Path, request: BuildRequest) -> Plan:
    """The plan for a tree. It is hostile: nothing outside it is read, links included.

    Raises PlanError where there is nothing to run, WorkflowError for a file with mistakes."""
    if request.workflow:
        return Plan(_named(tree, request.workflow), request.artifacts)
    if request.command:
        return Plan(from_command(request.command), request.artifacts)
    found = _of_repository(tree)
    return Plan(found, request.artifacts) if found else _detected(tree, request)


def _named(tree: Path, path: str) -> Workflow:
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
    for directory in _DIRECTORIES:
        first: Workflow | None = None
        for name in names_beneath(tree, directory):
            if name.endswith(_SUFFIXES):
                workflow = _named(tree, f"{directory}/{name}")
                if "push" in workflow.on:
                    return workflow
                first = first or workflow
        if first:
            return first
    return None


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
