"""`firebrick workflow check`: everything that is wrong with workflow files, and with what they use of their own repository."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer

from firebrick.cli.errors import print_error
from firebrick.confined import read_beneath
from firebrick.workflow.action_file import ACTION_FILES, ActionFile, read_action_file
from firebrick.workflow.called import load_with
from firebrick.workflow.local import check_actions, dockerfile_of
from firebrick.workflow.problem import Position, Problem, WorkflowError, printable
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.reference import DIRECTORIES, SUFFIXES
from firebrick.workflow.syntax import Workflow
from firebrick.workflow.yaml import MAX_BYTES

_HINT: Final = "Name workflow files, those of actions, or a directory with some."


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Workflow files; action.yml and action.yaml are actions; a directory is all of these in it. Default: here.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file, one a line.")] = False,
) -> None:
    """Say everything that is wrong with workflow and action files, each mistake with its line and column, and with the workflows and actions of the same
    repository that they use, Dockerfiles of actions included. Exit status 1 where there is any, 2 where a file cannot be read."""
    status = 0
    files, told = [], set[Problem]()
    for path in paths or [Path()]:
        found = files_in(path) if path.is_dir() else [path]
        if not found:
            print_error(f"there is no workflow in {path}", hint=_HINT)
            status = 2
        files += found
    for path in dict.fromkeys(files):
        try:
            checked = check_file(path)
        except OSError as error:
            print_error(f"cannot read {path}: {error.strerror}", hint=_HINT)
            status = 2
            continue
        checked = checked.without(told)
        told |= {*checked.errors, *checked.warnings}
        status = max(status, 1 if checked.errors else 0)
        _print_json(path, checked) if as_json else _print_problems(path, checked)
    raise typer.Exit(status)


def files_in(directory: Path) -> list[Path]:
    """The workflows of the repository `directory`, and its own action; of a directory that is none, its files with a name of workflows."""
    own = [directory / name for name in ACTION_FILES if (directory / name).is_file()]
    return [*own, *(file for folder in DIRECTORIES for file in _yaml(directory / folder))] or _yaml(directory)


def _yaml(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())


@dataclass(frozen=True, slots=True)
class Checked:
    """What there is to say of a file and of what it uses."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def without(self, told: set[Problem]) -> Checked:
        """What several files use has its mistakes once."""
        return Checked(_new(self.errors, told), _new(self.warnings, told))


def _new(problems: Iterable[Problem], told: set[Problem]) -> tuple[Problem, ...]:
    return tuple(problem for problem in dict.fromkeys(problems) if problem not in told)


def check_file(path: Path) -> Checked:
    """Of an action, if it has the name of one. Raises OSError."""
    with path.open("rb") as file:
        # One byte over the limit is enough to be refused for it.
        content = file.read(MAX_BYTES + 1)
    try:
        if path.name in ACTION_FILES:
            return _with_dockerfile(read_action_file(content, str(path)), path)
        workflow = read_workflow(content, str(path))
    except WorkflowError as error:
        return Checked(error.errors)
    root = _root_of(path)
    return Checked(warnings=workflow.warnings) if root is None else _with_used(workflow, path, root)


def _with_used(workflow: Workflow, file: Path, root: Path) -> Checked:
    def find(path: str) -> bytes | None:
        try:
            return read_beneath(root, path, MAX_BYTES + 1)
        except OSError:
            return None

    errors: list[Problem] = []
    called: list[Workflow] = []
    try:
        called += load_with(workflow, lambda target: find(target.path), local_only=True).found.values()
    except WorkflowError as error:
        errors += error.errors
    found = check_actions([workflow, *called], find)
    built = _built(root, found.dockerfiles)
    warnings = [*workflow.warnings, *(warning for each in called for warning in each.warnings), *found.warnings]
    return Checked(
        tuple(_placed([*found.errors, *built.errors, *errors], file, root)),
        tuple(_placed([*warnings, *built.warnings], file, root)),
    )


def _with_dockerfile(action: ActionFile, path: Path) -> Checked:
    """An action by itself: what it is built of is in its repository, or below it where none is known."""
    name = dockerfile_of(replace(action, path=path.name))
    if name is None:
        return Checked(warnings=action.warnings)
    folder = path.resolve().parent
    root = _root_of(path) or folder
    target = os.path.normpath(folder.relative_to(root) / name)
    missing = Problem(str(path), Position(), f"Can't find '{target}', of which the action is built")
    built = _built(root, {target: missing})
    return Checked(tuple(_placed(built.errors, path, root)), (*action.warnings, *_placed(built.warnings, path, root)))


def _built(root: Path, dockerfiles: Mapping[str, Problem]) -> Checked:
    """The mistakes of Dockerfiles, and the warnings for those that are not there. Their language is imported for those who have any."""
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for path, missing in dockerfiles.items():
        from firebrick.cli.dockerfile import read_problems

        try:
            errors += read_problems(root, path)
        except OSError:
            warnings.append(missing)
    return Checked(tuple(errors), tuple(warnings))


def _root_of(path: Path) -> Path | None:
    """The repository a file belongs to, where that can be told."""
    folder = path.resolve().parent
    for above in (folder, *folder.parents):
        if (above / ".git").exists() or any((above / each) == folder for each in DIRECTORIES):
            return above
    return None


def _placed(problems: Iterable[Problem], path: Path, root: Path) -> Iterator[Problem]:
    """Those of other files as seen from where we are, like the one that was named."""
    for problem in problems:
        if problem.file == str(path):
            yield problem
        else:
            near = os.path.relpath(root / problem.file, path.resolve().parent)
            yield replace(problem, file=os.path.normpath(path.parent / near))


def _print_json(path: Path, checked: Checked) -> None:
    found = {
        "file": str(path),
        "ok": not checked.errors,
        "errors": [problem.to_json() for problem in checked.errors],
        "warnings": [problem.to_json() for problem in checked.warnings],
    }
    typer.echo(json.dumps(found))


def _print_problems(path: Path, checked: Checked) -> None:
    for problem in checked.errors:
        _print_problem(problem, "")
    for problem in checked.warnings:
        _print_problem(problem, "warning: ")
    if not checked.errors:
        _print(f"{path}: ok")


def _print_problem(problem: Problem, prefix: str) -> None:
    _print(f"{prefix}{problem}")
    if sys.stdout.isatty() and (excerpt := problem.excerpt()):
        typer.echo(excerpt)


def _print(text: str) -> None:
    typer.echo(printable(text))
