"""What `firebrick run` was asked for, made into an order for a node."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick import process
from firebrick.cli.errors import UsageError
from firebrick.cli.event import EventWish, find_occasion
from firebrick.confined import OutsideError, read_beneath
from firebrick.node.context import guest_paths, run_facts
from firebrick.node.order import EnvironmentOrder, Resources, RunOrder, Source
from firebrick.workflow.called import load_with
from firebrick.workflow.context import github_context
from firebrick.workflow.detect import detect, from_command
from firebrick.workflow.event.filter import decide
from firebrick.workflow.expression.expression import EvaluationError, Scope, Value
from firebrick.workflow.plan import plan
from firebrick.workflow.policy import run_name
from firebrick.workflow.preview import evaluated_concurrency, preview
from firebrick.workflow.problem import Problem, WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.reference import DIRECTORIES, SUFFIXES, Target
from firebrick.workflow.syntax import Workflow
from firebrick.workflow.yaml import MAX_BYTES

_REMOTE: Final = re.compile(r"[/:]([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The command line, checked for its form only."""

    repository: Path
    workflow: str | None
    command: str | None
    jobs: tuple[str, ...]
    image: str | None
    resources: Resources
    secrets: Mapping[str, str]
    event: EventWish = field(default_factory=EventWish)
    environments: Mapping[str, EnvironmentOrder] = field(default_factory=dict)


async def make_order(
    wish: Wish,
    *,
    id: str,  # noqa: A002 - the field of the order
    artifact_dir: Path,
    given: Workflow | None = None,
) -> RunOrder:
    """The order for what was asked, with the workflow `given` where there is one. Raises UsageError where there is nothing to run or too much to
    choose from, WorkflowError for a file with mistakes, also one of the sources that it calls."""
    if not wish.repository.is_dir():
        raise UsageError(f"there is no directory {wish.repository}", hint="Name a repository with -C.")
    source = await describe_source(wish.repository)
    workflow, collect = (given, ()) if given is not None else _choose(wish, source.path)
    unknown = sorted(set(wish.jobs) - set(workflow.jobs))
    if unknown:
        raise UsageError(
            f"{workflow.path} has no job {' or '.join(unknown)}", hint=f"It has {', '.join(workflow.jobs)}."
        )
    told, inputs = _told(wish.event, workflow, source)
    order = RunOrder(
        id=id,
        workflow=workflow,
        source=told,
        artifact_dir=artifact_dir,
        resources=wish.resources,
        jobs=frozenset(wish.jobs),
        image=wish.image,
        collect=collect,
        secrets=wish.secrets,
        inputs=inputs,
        variables=wish.event.variables,
        environments=wish.environments,
    )
    if given is None:
        _check(order)
    return order


def _check(order: RunOrder) -> None:
    """What cannot be planned is a mistake of the workflow, as for `firebrick workflow plan`. What workflows of other repositories make of it is found
    out by the node. Raises WorkflowError."""
    workflow = order.workflow
    calls = load_with(workflow, lambda target: find_called(order.source.path, target), local_only=True)
    github = github_context(run_facts(order), job="", paths=guest_paths(order))
    contexts: dict[str, Value] = {"github": github, "inputs": order.inputs, "vars": dict(order.variables)}
    named(workflow, contexts)
    if order.jobs:
        plan(workflow, contexts=contexts, only=order.jobs)
    else:
        preview(workflow, calls, contexts)


def named(workflow: Workflow, contexts: Mapping[str, Value]) -> tuple[str, Value]:
    """What a run is called, and its concurrency group as `firebrick workflow plan` shows it. Raises WorkflowError."""
    try:
        return run_name(workflow, Scope(contexts)), evaluated_concurrency(workflow.concurrency, Scope(contexts))
    except EvaluationError as error:
        place = next(iter(workflow.jobs.values())).position
        message = f"Error when evaluating 'run-name' or 'concurrency' of the workflow. {error}"
        raise WorkflowError((Problem(workflow.path, place, message),)) from error


def _told(wish: EventWish, workflow: Workflow, source: Source) -> tuple[Source, Mapping[str, Value]]:
    """The sources with the event asked for, and the inputs. An event that is named must start the workflow; a workflow alone runs."""
    if not wish.is_told:
        return source, {}
    occasion = find_occasion(wish, workflow, source)
    decision = decide(workflow.on, occasion.event)
    if wish.name is not None and not decision.starts:
        hint = "Without --event the workflow runs whatever its events are."
        raise UsageError(f"{wish.name} does not start {workflow.path}: {decision.reason}", hint=hint)
    return occasion.source, occasion.inputs


def find_called(root: Path, target: Target) -> bytes | None:
    """The file of a called workflow of the sources; None where there is none. Raises UsageError for one that leads out of them."""
    try:
        return read_beneath(root, target.path, MAX_BYTES + 1)
    except OutsideError as error:
        raise UsageError(f"cannot read the workflow {target}: {error}") from error
    except OSError:
        return None


def _choose(wish: Wish, root: Path) -> tuple[Workflow, tuple[str, ...]]:
    if wish.command is not None:
        if wish.workflow is not None:
            raise UsageError("a workflow and --command are both given", hint="Give one of them.")
        return from_command(wish.command), ()
    if wish.workflow is not None:
        return _named(wish.workflow, root), ()
    files = find_workflows(root)
    if len(files) == 1:
        return read_file(files[0], root), ()
    if files:
        names = ", ".join(file.name for file in files)
        raise UsageError(f"{root} has several workflows: {names}", hint=f"Name one: firebrick run {files[0].name}")
    return _detect(root)


def find_workflows(root: Path) -> list[Path]:
    """Of the first directory that has any, by name."""
    for directory in DIRECTORIES:
        folder = root / directory
        found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES) if folder.is_dir() else []
        if found:
            return found
    return []


def _named(name: str, root: Path) -> Workflow:
    """A file as given, relative to here or to the repository, or one of the repository's workflows by its name."""
    named = [file for file in find_workflows(root) if name in (file.name, file.stem)]
    for file in (Path(name), root / name, *named):
        if file.is_file():
            return read_file(file, root)
    known = ", ".join(file.name for file in find_workflows(root))
    hint = f"The repository has {known}." if known else f"The repository has none in {' or '.join(DIRECTORIES)}."
    raise UsageError(f"there is no workflow {name}", hint=hint)


def read_file(file: Path, root: Path) -> Workflow:
    """The workflow in a file, which goes by its path in the repository `root` where it is in it. Raises WorkflowError, OSError."""
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    absolute = file.resolve()
    shown = absolute.relative_to(root) if absolute.is_relative_to(root) else file
    return read_workflow(content, str(shown))


def _detect(root: Path) -> tuple[Workflow, tuple[str, ...]]:
    found = detect([entry.name for entry in root.iterdir()], lambda name: _text(root / name))
    if found is None:
        raise UsageError(
            f"{root} has no workflow, and none of the files that would say how to build it",
            hint="Add a workflow in .github/workflows, name a file, or give a --command.",
        )
    return found.workflow, found.collect


def _text(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return None


async def describe_source(directory: Path) -> Source:
    """The tree and what git says of it. Of a directory in the middle of a repository, the whole repository."""
    top = await _git(directory, "rev-parse", "--show-toplevel")
    if not top:
        path = directory.resolve()
        return Source(path=path, repository=f"{_user()}/{path.name or 'root'}", ref="", sha="")
    path = Path(top)
    sha = await _git(path, "rev-parse", "--verify", "--quiet", "HEAD")
    ref = await _git(path, "symbolic-ref", "--quiet", "HEAD")
    remote = _REMOTE.search(await _git(path, "config", "--get", "remote.origin.url"))
    repository = f"{remote[1]}/{remote[2]}" if remote else f"{_user()}/{path.name}"
    event = {"ref": ref, "after": sha, "repository": {"full_name": repository, "name": repository.partition("/")[2]}}
    return Source(path=path, repository=repository, ref=ref, sha=sha, event=event)


async def commit_time(repository: Path) -> int | None:
    """When the checked-out commit was made, in seconds since 1970; None where there is none."""
    text = await _git(repository, "show", "--no-patch", "--format=%ct", "HEAD")
    return int(text) if text.isdecimal() else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


async def _git(directory: Path, *words: str) -> str:
    """One line git says about the user's own repository; empty where it has nothing to say or is not there."""
    try:
        done = await process.run(["git", "-C", str(directory), *words], check=False, timeout=30)
    except process.ProcessError:
        return ""
    return done.text.strip() if done.returncode == 0 else ""
