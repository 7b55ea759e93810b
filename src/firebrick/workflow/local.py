"""The actions of its own repository that a workflow uses, read and checked before anything runs.

Steps may put into the workspace what the repository has not, so an action that is not there is no mistake yet. Only files are looked at: what an action
would find in a workspace that is another one's is not known.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from firebrick.workflow.action_file import (
    ACTION_FILES,
    DOCKERFILES,
    ActionFile,
    CompositeRuns,
    DockerRuns,
    read_action_file,
)
from firebrick.workflow.problem import Problem, WorkflowError
from firebrick.workflow.syntax import Step, Workflow
from firebrick.workflow.uses import LocalAction, UsesError, parse_uses

MOST_ACTIONS: Final = 500


class FindFile(Protocol):
    """Files of the repository by their path from its root; None where there is none that may be read."""

    def __call__(self, path: str) -> bytes | None: ...


@dataclass(slots=True)
class Findings:
    """`dockerfiles` are the paths of what actions are built of, from the root: each with the warning for where there is none. They are not read here."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    dockerfiles: dict[str, Problem] = field(default_factory=dict)


def check_actions(workflows: Iterable[Workflow], find: FindFile) -> Findings:
    """What is wrong with the actions of the repository that these workflows of it use, and with how they are used: at most 500 of them."""
    return _Check(find).run(workflows)


@dataclass(frozen=True, slots=True)
class _Use:
    """A step of `file` that uses an action in `folder`, relative to the root."""

    file: str
    step: Step
    folder: str


class _Check:
    def __init__(self, find: FindFile) -> None:
        self._find = find
        self._found = Findings()
        self._read: dict[str, ActionFile | None] = {}

    def run(self, workflows: Iterable[Workflow]) -> Findings:
        pending = [
            use for workflow in workflows for job in workflow.jobs.values() for use in _uses(workflow.path, job.steps)
        ]
        for use in pending:
            is_new = use.folder not in self._read
            if is_new and len(self._read) >= MOST_ACTIONS:
                break
            action = self._action(use)
            if action is None:
                continue
            self._check_inputs(use, action)
            if is_new and isinstance(action.runs, CompositeRuns):
                pending += _uses(action.path, action.runs.steps)
            elif is_new and (path := dockerfile_of(action)) is not None:
                self._note_dockerfile(use, path)
        return self._found

    def _action(self, use: _Use) -> ActionFile | None:
        """None where there is none to be looked into."""
        if use.folder in self._read:
            return self._read[use.folder]
        self._read[use.folder] = None
        for name in ACTION_FILES:
            path = posixpath.join(use.folder, name) if use.folder != "." else name
            if (content := self._find(path)) is not None:
                self._read[use.folder] = self._parsed(content, path)
                return self._read[use.folder]
        paths = [posixpath.normpath(posixpath.join(use.folder, name)) for name in DOCKERFILES]
        found = next((path for path in paths if self._find(path) is not None), None)
        if found is not None:
            self._note_dockerfile(use, found)
        else:
            self._warn(
                use,
                f"Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under '{use.step.uses}': the step fails, unless one before it "
                "puts it there",
            )
        return None

    def _parsed(self, content: bytes, path: str) -> ActionFile | None:
        try:
            action = read_action_file(content, path)
        except WorkflowError as error:
            self._found.errors += error.errors
            return None
        self._found.warnings += action.warnings
        return action

    def _check_inputs(self, use: _Use, action: ActionFile) -> None:
        """GitHub runs the action all the same, and so do we."""
        if use.step.with_.expression is not None:
            return
        given = {name.lower() for name in use.step.with_.entries}
        known = {name.lower() for name in action.inputs}
        for name in use.step.with_.entries:
            if name.lower() not in known:
                valid = "', '".join(action.inputs)
                self._warn(use, f"Unexpected input(s) '{name}', valid inputs are ['{valid}']")
        for name, one in action.inputs.items():
            if one.required and one.default is None and name.lower() not in given:
                self._warn(use, f"Input required and not supplied: {name}")

    def _note_dockerfile(self, use: _Use, path: str) -> None:
        missing = f"Can't find '{path}', of which '{use.step.uses}' is built: the step fails, unless one before it puts it there"
        self._found.dockerfiles.setdefault(path, Problem(use.file, use.step.position, missing))

    def _warn(self, use: _Use, message: str) -> None:
        self._found.warnings.append(Problem(use.file, use.step.position, message))


def dockerfile_of(action: ActionFile) -> str | None:
    """The path of what an action is built of, from where its own path begins; None for one that is not built."""
    if not isinstance(action.runs, DockerRuns) or action.runs.image.startswith("docker://"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(action.path), action.runs.image))


def _uses(file: str, steps: Iterable[Step]) -> Iterator[_Use]:
    """Those that use an action of the workspace. One that leads out of it is none of the repository."""
    for step in steps:
        try:
            action = parse_uses(step.uses) if step.uses is not None else None
        except UsesError:  # told where the file is read
            continue
        if isinstance(action, LocalAction):
            folder = posixpath.normpath(action.path)
            if folder != ".." and not folder.startswith("../"):
                yield _Use(file, step, folder)
