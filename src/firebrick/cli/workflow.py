"""`firebrick workflow`: what can be said of workflow files without running them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from firebrick.cli.errors import print_error
from firebrick.cli.evaluate import evaluate
from firebrick.cli.graph import graph
from firebrick.cli.plan import plan
from firebrick.workflow.action_file import read_action_file
from firebrick.workflow.problem import Problem, WorkflowError, printable
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.yaml import MAX_BYTES

app = typer.Typer(add_completion=False, help="Check and explain workflow files.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Check and explain workflow files."""


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(help="Workflow files; action.yml and action.yaml are actions.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file, one a line.")] = False,
) -> None:
    """Say everything that is wrong with workflow and action files, each mistake with its line and column. Exit status 1 where there is any, 2 where
    a file cannot be read."""
    status = 0
    for path in files:
        try:
            with path.open("rb") as file:
                # One byte over the limit is enough to be refused for it.
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            print_error(f"cannot read {path}: {error.strerror}", hint="Name workflow files, or those of actions.")
            status = 2
            continue
        errors, warnings = find_problems(content, str(path))
        status = max(status, 1 if errors else 0)
        _print_json(path, errors, warnings) if as_json else _print_problems(path, errors, warnings)
    raise typer.Exit(status)


app.command()(plan)
app.command()(graph)
# An expression may begin with a minus.
app.command("eval", context_settings={"ignore_unknown_options": True})(evaluate)


_ACTION_FILES: Final = ("action.yml", "action.yaml")


def find_problems(content: bytes, name: str) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Errors and warnings of one file: of an action, if it has the name of one."""
    read = read_action_file if Path(name).name in _ACTION_FILES else read_workflow
    try:
        return (), read(content, name).warnings
    except WorkflowError as error:
        return error.errors, ()


def _print_json(path: Path, errors: tuple[Problem, ...], warnings: tuple[Problem, ...]) -> None:
    found = {
        "file": str(path),
        "ok": not errors,
        "errors": [problem.to_json() for problem in errors],
        "warnings": [problem.to_json() for problem in warnings],
    }
    typer.echo(json.dumps(found))


def _print_problems(path: Path, errors: tuple[Problem, ...], warnings: tuple[Problem, ...]) -> None:
    for problem in errors:
        _print_problem(problem, "")
    for problem in warnings:
        _print_problem(problem, "warning: ")
    if not errors:
        _print(f"{path}: ok")


def _print_problem(problem: Problem, prefix: str) -> None:
    _print(f"{prefix}{problem}")
    if sys.stdout.isatty() and (excerpt := problem.excerpt()):
        typer.echo(excerpt)


def _print(text: str) -> None:
    typer.echo(printable(text))
