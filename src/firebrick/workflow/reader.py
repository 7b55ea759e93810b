"""A workflow file into records: `read_workflow` is the one way in. It finds every mistake it can before it gives up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from firebrick.workflow import allowed
from firebrick.workflow.fork import check_fork
from firebrick.workflow.graph import check_needs
from firebrick.workflow.parser import Allowed
from firebrick.workflow.problem import Position, WorkflowError
from firebrick.workflow.schema import WORKFLOW
from firebrick.workflow.shape import Fields, Walk
from firebrick.workflow.shell import ShellError, find_shell
from firebrick.workflow.syntax import Job, RunDefaults, Step, Strategy, Workflow
from firebrick.workflow.template import Condition, Template, TemplateMap, parse_condition
from firebrick.workflow.yaml import load_yaml

# Actions whose work the node does itself.
NATIVE_ACTIONS = frozenset({"actions/checkout", "actions/upload-artifact"})

_MAX_ID = 100
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def read_workflow(text: str | bytes, path: str) -> Workflow:
    """The workflow in `text`; `path` is what messages call the file, and the workflow's name where it has none. Bytes are UTF-8.

    Raises WorkflowError with all problems of the file."""
    root = load_yaml(text, path)
    content = text if isinstance(text, str) else text.decode("utf-8-sig")
    walk = Walk(path, content.splitlines())
    fields = walk.read(root, WORKFLOW)
    jobs: dict[str, Job] = {}
    if isinstance(fields, Fields):
        jobs = _jobs(fields, walk)
        _check_shell(_defaults(fields.get("defaults")).shell, walk)
    if walk.problems:
        hint = "Correct the file; `firebrick workflow check FILE` shows all of its problems again."
        raise WorkflowError(
            tuple(sorted(dict.fromkeys(walk.problems), key=lambda problem: problem.position)), hint=hint
        )
    return Workflow(
        name=fields.get("name") or path,
        path=path,
        on=_events(fields["on"]),
        env=_names(fields.get("env")),
        defaults=_defaults(fields.get("defaults")),
        jobs=jobs,
        run_name=fields.get("run-name"),
        warnings=tuple(sorted(dict.fromkeys(walk.warnings), key=lambda problem: problem.position)),
    )


def _events(on: Any) -> Mapping[str, object]:
    if isinstance(on, str):
        return {on: None}
    if isinstance(on, tuple):
        return dict.fromkeys(on)
    return {event: on.get(event) for event in on.places}


def _jobs(fields: Fields, walk: Walk) -> dict[str, Job]:
    """Every job that could be read."""
    written = fields.get("jobs")
    if not isinstance(written, Fields):
        return {}
    jobs: dict[str, Job] = {}
    for name, job in written.items():
        position = written.places[name]
        _check_id(name, position, walk)
        if isinstance(job, Fields):
            jobs[name] = _job(name, position, job, walk, written.places)
    needs = {name: [(need.raw, need.position) for need in _several(written.get(name))] for name in written.places}
    check_needs(needs, walk.problem, written.position)
    return jobs


def _check_id(name: str, position: Position, walk: Walk) -> None:
    if not _ID.fullmatch(name) or len(name) >= _MAX_ID:
        walk.problem(
            position,
            f"The identifier '{name[:_MAX_ID]}' is invalid. IDs may only contain alphanumeric characters, '_', and '-'. "
            f"IDs must start with a letter or '_' and must be less than {_MAX_ID} characters.",
        )
    elif name.startswith("__"):
        walk.problem(position, f"The identifier '{name}' is invalid. IDs starting with '__' are reserved.")


def _job(name: str, position: Position, fields: Fields, walk: Walk, jobs: Iterable[str]) -> Job:
    spelled = {job.lower(): job for job in jobs}
    steps = _steps(fields.get("steps"), walk)
    if "steps" in fields.places or "uses" not in fields.places:
        _check_steps(name, fields, walk)
    defaults = _defaults(fields.get("defaults"))
    _check_shell(defaults.shell, walk)
    job = Job(
        id=name,
        position=position,
        name=fields.get("name"),
        needs=tuple(dict.fromkeys(spelled.get(need.raw.lower(), need.raw) for need in _several(fields))),
        runs_on=_labels(fields.get("runs-on")),
        if_=fields.get("if") or _after_success(position, allowed.JOB_IF),
        env=_names(fields.get("env")),
        defaults=defaults,
        steps=steps,
        outputs=_names(fields.get("outputs")),
        timeout_minutes=fields.get("timeout-minutes"),
        strategy=_strategy(fields.get("strategy")),
        continue_on_error=fields.get("continue-on-error"),
    )
    check_fork(job, walk.problem)
    return job


def _check_steps(name: str, fields: Fields, walk: Walk) -> None:
    if fields.get("steps") == () or ("steps" not in fields.places and "runs-on" in fields.places):
        walk.problem(
            fields.places.get("steps", fields.position),
            f"No steps defined in `steps` and no workflow called in `uses` for the following jobs: {name}",
            "a sequence of steps",
        )


def _after_success(position: Position, at: Allowed) -> Condition:
    return parse_condition(None, position, at)


def _labels(runs_on: Any) -> tuple[Template, ...]:
    if isinstance(runs_on, Fields):
        runs_on = runs_on.get("labels")
    if isinstance(runs_on, tuple):
        return tuple(label for label in runs_on if label is not None)
    return () if runs_on is None else (runs_on,)


def _steps(written: Any, walk: Walk) -> tuple[Step, ...]:
    steps: list[Step] = []
    seen: set[str] = set()
    for fields in written or ():
        if not isinstance(fields, Fields) or not fields:
            continue
        if (name := fields.get("id")) is not None:
            _check_id(name, fields.places["id"], walk)
            if name.lower() in seen:
                message = f"The identifier '{name}' may not be used more than once within the same scope."
                walk.problem(fields.places["id"], message, "an identifier of its own for each step of a job")
            seen.add(name.lower())
        steps.append(_step(fields, walk))
    return tuple(steps)


def _step(fields: Fields, walk: Walk) -> Step:
    uses = fields.get("uses")
    if uses is not None:
        _check_uses(uses, fields.places["uses"], walk)
    shell = fields.get("shell")
    _check_shell(shell, walk)
    return Step(
        id=fields.get("id", ""),
        position=fields.position,
        name=fields.get("name"),
        if_=fields.get("if") or _after_success(fields.position, allowed.STEP_IF),
        run=fields.get("run"),
        uses=uses,
        with_=_names(fields.get("with")),
        shell=shell,
        env=_names(fields.get("env")),
        working_directory=fields.get("working-directory"),
        timeout_minutes=fields.get("timeout-minutes"),
        continue_on_error=fields.get("continue-on-error"),
    )


_ACTION = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:/[^@\s]*)?@(?P<ref>\S+)")


def _check_uses(uses: str, position: Position, walk: Walk) -> None:
    """An action must be one the node does itself; others are not run yet."""
    native = ", ".join(sorted(NATIVE_ACTIONS))
    if uses.startswith(("./", "../", "docker://")):
        walk.problem(position, f"The action '{uses}' is not supported yet", f"a run step, or one of {native}")
        return
    match = _ACTION.fullmatch(uses)
    if match is None:
        walk.problem(
            position,
            f"Expected format {{org}}/{{repo}}[/path]@ref. Actual '{uses}'",
            f"an action with its version, as {native.split(', ')[0]}@v4",
        )
    elif match["name"].lower() not in NATIVE_ACTIONS:
        walk.problem(position, f"The action '{uses}' is not supported yet", f"a run step, or one of {native}")


def _check_shell(shell: Template | None, walk: Walk) -> None:
    if shell is None or not shell.is_literal:
        return
    try:
        find_shell(shell.raw)
    except ShellError as error:
        walk.problem(shell.position, str(error), error.hint)


def _strategy(fields: Any) -> Strategy | None:
    if not isinstance(fields, Fields):
        return None
    return Strategy(
        matrix=fields.get("matrix"),
        fail_fast=fields.get("fail-fast"),
        max_parallel=fields.get("max-parallel"),
    )


def _defaults(fields: Any) -> RunDefaults:
    run = fields.get("run") if isinstance(fields, Fields) else None
    if not isinstance(run, Fields):
        return RunDefaults()
    return RunDefaults(shell=run.get("shell"), working_directory=run.get("working-directory"))


def _names(value: Any) -> TemplateMap:
    if isinstance(value, Template):
        return TemplateMap(expression=value)
    return TemplateMap({name: item for name, item in value.items() if item is not None} if value else {})


def _several(job: Any) -> tuple[Template, ...]:
    """What a job needs, each with its place."""
    needs = job.get("needs", ()) if isinstance(job, Fields) else ()
    return (needs,) if isinstance(needs, Template) else tuple(need for need in needs if need is not None)
