"""`firebrick workflow plan`: which jobs an event starts, and what is known of each before anything runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firebrick.cli.errors import USAGE, UsageError
from firebrick.cli.event import EventWish, Occasion, find_occasion, read_pairs
from firebrick.cli.eventoption import EventOption, InputOption, PayloadOption, VarOption
from firebrick.cli.order import describe_source, find_called, named, read_file
from firebrick.cli.terminal import tame, tame_json
from firebrick.node.context import facts_of
from firebrick.workflow.called import load_with
from firebrick.workflow.context import GuestPaths, github_context
from firebrick.workflow.event.filter import Decision, decide
from firebrick.workflow.expression.expression import Value
from firebrick.workflow.permission import granted
from firebrick.workflow.preview import PreviewedJob, preview
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.syntax import Workflow

NOTHING_STARTS: Final = 1
_WIDE: Final = 160


def plan(
    file: Annotated[Path, typer.Argument(help="A workflow file.", show_default=False)],
    event: EventOption = None,
    payload: PayloadOption = None,
    inputs: InputOption = None,
    var: VarOption = None,
    changed: Annotated[
        list[str] | None,
        typer.Option(
            "--changed",
            metavar="PATH",
            help="A file the event changes, for filters of paths. May be repeated. Default: what the payload says.",
        ),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(help="The branch, or the full ref, the event is about. Default: what is checked out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say whether an event starts a workflow, and which jobs that makes: with matrices expanded, called workflows looked into, and what is known before
    anything runs. Exit status 0 where it starts, 1 where it does not, 2 for a workflow or an event with mistakes."""
    wish = EventWish(
        name=event,
        payload=payload,
        inputs=read_pairs(inputs or (), "--input"),
        variables=read_pairs(var or (), "--var"),
        changed=tuple(changed) if changed is not None else None,
        ref=ref,
    )
    try:
        found = make_plan(file, wish)
    except WorkflowError as error:
        if not as_json:
            raise
        _print_json({"file": str(file), "starts": False, "errors": [problem.to_json() for problem in error.errors]})
        raise typer.Exit(USAGE) from error
    _print_json(found.to_json()) if as_json else _print(found, Console())
    raise typer.Exit(0 if found.decision.starts else NOTHING_STARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is to say of a workflow and an event."""

    workflow: Workflow
    occasion: Occasion
    decision: Decision
    run_name: str = ""
    concurrency: Any = None
    jobs: tuple[PreviewedJob, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "file": self.workflow.path,
            "name": self.workflow.name,
            "event": self.occasion.event.name,
            "ref": self.occasion.source.ref,
            "starts": self.decision.starts,
            "reason": self.decision.reason,
            "run-name": self.run_name or None,
            "concurrency": self.concurrency,
            "inputs": dict(self.occasion.inputs),
            "jobs": [job.to_json() for job in self.jobs],
        }


def make_plan(file: Path, wish: EventWish) -> Found:
    """Raises UsageError, WorkflowError."""
    with _readable(file):
        file.open("rb").close()  # told before git is asked anything
    source = asyncio.run(describe_source(file.resolve().parent))
    with _readable(file):
        workflow = read_file(file, source.path)
    occasion = find_occasion(wish, workflow, source)
    decision = decide(workflow.on, occasion.event)
    if not decision.starts:
        return Found(workflow=workflow, occasion=occasion, decision=decision)
    calls = load_with(workflow, lambda target: find_called(source.path, target), local_only=True)
    contexts = _contexts(workflow, occasion, wish)
    name, concurrency = named(workflow, contexts)
    return Found(
        workflow=workflow,
        occasion=occasion,
        decision=decision,
        run_name=name,
        concurrency=concurrency,
        jobs=preview(workflow, calls, contexts),
    )


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="Name a workflow file.") from error


def _contexts(workflow: Workflow, occasion: Occasion, wish: EventWish) -> dict[str, Value]:
    github = github_context(facts_of("1", workflow, occasion.source), job="", paths=GuestPaths())
    return {"github": github, "inputs": occasion.inputs, "vars": dict(wish.variables)}


def _print_json(found: dict[str, object]) -> None:
    typer.echo(tame_json(json.dumps(_whole(found), ensure_ascii=False)))


def _whole(value: Any) -> Any:
    """Numbers as one writes them: those of a file are all doubles."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        changed = {key: _whole(item) for key, item in items}
        return changed if isinstance(value, dict) else list(changed.values())
    return value


def _print(found: Found, console: Console) -> None:
    if not console.is_terminal:
        console.width = _WIDE
    title = found.run_name or found.workflow.name
    where = f" on {found.occasion.event.name}" + (f", {found.occasion.source.ref}" if found.occasion.source.ref else "")
    console.print(Text.assemble((_one(title), "bold"), (_one(where), "dim")), soft_wrap=True)
    mark = Text("✓ starts: ", "bold green") if found.decision.starts else Text("✗ does not start: ", "bold yellow")
    console.print(mark + Text(_one(found.decision.reason)), soft_wrap=True)
    listens = found.occasion.event.name in found.workflow.on  # else no branch would make it start
    if listens and not found.decision.starts and not found.occasion.source.ref:
        console.print(Text("  Say which branch it is about with --ref, or with a --payload.", "dim"), soft_wrap=True)
    if found.concurrency is not None:
        console.print(Text(f"  {_one(_group(found.concurrency))}", "dim"), soft_wrap=True)
    if found.jobs:
        shared = granted(found.workflow.permissions) if found.workflow.permissions is not None else None
        if shared is not None:
            console.print(Text(f"  {_permissions(shared)}", "dim"), soft_wrap=True)
        table = _table(found.jobs, shared)
        if console.is_terminal:
            console.print(table)
        else:  # rich fills lines up, which a file needs not
            with console.capture() as captured:
                console.print(table)
            typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _table(jobs: tuple[PreviewedJob, ...], shared: Any) -> Table:
    """`shared` are the permissions of the workflow: those of a job are shown where they are others."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("", width=1)
    table.add_column("job", overflow="fold")
    table.add_column("runs on", overflow="fold")
    table.add_column("after", overflow="fold", style="dim")
    table.add_column("", overflow="fold", style="dim")
    for job in jobs:
        mark, style = _MARKS[job.runs]
        name = Text(_one(job.name), "dim" if job.runs is False else "bold")
        where = f"→ {job.uses}" if job.uses else ", ".join(job.runs_on)
        table.add_row(Text(mark, style), name, _one(where), _one(", ".join(job.needs)), _one(_details(job, shared)))
    return table


_MARKS: Final = {True: ("●", "green"), None: ("○", "cyan"), False: ("-", "dim")}


def _details(job: PreviewedJob, shared: Any) -> str:
    """What is special about a job, in a line."""
    words = ["becomes jobs when what it needs has ended"] if job.is_open else []
    if job.condition:
        words.append(f"if {job.condition}")
    words += [f"timeout {job.timeout_minutes} min"] if job.timeout_minutes else []
    words += ["may fail"] if job.continue_on_error == "true" else []
    if job.concurrency is not None:
        words.append(_group(job.concurrency))
    if job.environment is not None:
        words.append(f"environment {job.environment['name']}")
    if job.permissions is not None and job.permissions != shared:
        words.append(_permissions(job.permissions))
    return " · ".join(words)


def _permissions(levels: Any) -> str:
    words = [f"{level}-all" if scope == "*" else f"{scope}: {level}" for scope, level in levels.items()]
    return f"permissions {', '.join(words) or 'none'}"


def _group(concurrency: Any) -> str:
    cancels = concurrency["cancel-in-progress"]
    how = ", cancels what is in progress" if cancels is True else f", {cancels}" if cancels else ""
    return f"group {concurrency['group']}{how}"


def _one(text: str) -> str:
    return tame(text, colour=False)
