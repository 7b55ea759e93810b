"""What is to run on a tree: the workflow named in the request, else its command, else the repository's workflow, else a command found by looking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from firebrick.server.confined import OutsideError, names_beneath, read_beneath
from firebrick.server.errors import PlanError
from firebrick.server.record import BuildRequest
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.syntax import Workflow

_DIRECTORIES: Final = (".forgejo/workflows", ".github/workflows")
_LARGEST: Final = 512 << 10
_SUFFIXES: Final = (".yml", ".yaml")


def choose_workflow(tree: Path, request: BuildRequest) -> Workflow:
    """The workflow to run. The tree is hostile: nothing outside it is read, links included.

    Raises PlanError where there is nothing to run, WorkflowError for a file with mistakes."""
    if request.workflow:
        return _named(tree, request.workflow)
    if request.command:
        return command_workflow(request.command)
    found = _of_repository(tree)
    return found or _detected(tree)


def _named(tree: Path, path: str) -> Workflow:
    try:
        return read_workflow(read_beneath(tree, path, _LARGEST), path)
    except OutsideError as error:
        raise PlanError(f"cannot read the workflow: {error}") from error
    except OSError as error:
        raise PlanError(
            f"the repository has no workflow {path}", hint="The path is relative to the repository's root."
        ) from error


def _of_repository(tree: Path) -> Workflow | None:
    """The first workflow by name that runs on a push, or else the first; of the first directory that has any."""
    for directory in _DIRECTORIES:
        names = [name for name in names_beneath(tree, directory) if name.endswith(_SUFFIXES)]
        first: Workflow | None = None
        for name in names:
            workflow = _named(tree, f"{directory}/{name}")
            if "push" in workflow.on:
                return workflow
            first = first or workflow
        if first:
            return first
    return None


def command_workflow(command: str) -> Workflow:
    """A workflow of one job that runs a command in the repository's tree."""
    steps = [{"uses": "actions/checkout@v4"}, {"name": command.strip().splitlines()[0][:80], "run": command}]
    jobs = {"build": {"runs-on": "linux", "steps": steps}}
    # JSON is YAML, and quotes for us whatever the command holds.
    return read_workflow(json.dumps({"name": "command", "on": "workflow_dispatch", "jobs": jobs}), "command")


def _detected(tree: Path) -> Workflow:
    raise PlanError(
        f"{tree.name}: the repository has no workflow, and nothing says how to build it",
        hint="Add a workflow in .github/workflows, or give a `command` with the request.",
    )
