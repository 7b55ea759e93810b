"""A workflow file into records: `read_workflow` is the one way in. It finds every mistake it can before it gives up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from firebrick.workflow import allowed
from firebrick.workflow.graph import check_needs
from firebrick.workflow.problem import Position
from firebrick.workflow.schema import WORKFLOW
from firebrick.workflow.shape import Fields, Walk, in_file_order
from firebrick.workflow.step_reader import (
    after_success,
    check_id,
    check_shell,
    check_uses_format,
    read_steps,
    template_map,
)
from firebrick.workflow.syntax import Job, RunDefaults, Strategy, Workflow
from firebrick.workflow.template import Template
from firebrick.workflow.uses import DockerImage
from firebrick.workflow.yaml import load_yaml


def read_workflow(text: str | bytes, path: str) -> Workflow:
    """The workflow in `text`; `path` is what messages call the file, and the workflow's name where it has none. Bytes are UTF-8.

    Raises WorkflowError with all problems of the file."""
    root = load_yaml(text, path)
    walk = Walk(path, text)
    fields = walk.read(root, WORKFLOW)
    jobs: dict[str, Job] = {}
    if isinstance(fields, Fields):
        jobs = _jobs(fields, walk)
        check_shell(_defaults(fields.get("defaults")).shell, walk)
    walk.finish(hint="Correct the file; `firebrick workflow check FILE` shows all of its problems again.")
    return Workflow(
        name=fields.get("name") or path,
        path=path,
        on=_events(fields["on"]),
        env=template_map(fields.get("env")),
        defaults=_defaults(fields.get("defaults")),
        jobs=jobs,
        run_name=fields.get("run-name"),
        warnings=in_file_order(walk.warnings),
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
        check_id(name, position, walk)
        if isinstance(job, Fields):
            jobs[name] = _job(name, position, job, walk, written.places)
    needs = {name: [(need.raw, need.position) for need in _several(written.get(name))] for name in written.places}
    check_needs(needs, walk.problem, written.position)
    return jobs


def _job(name: str, position: Position, fields: Fields, walk: Walk, jobs: Iterable[str]) -> Job:
    spelled = {job.lower(): job for job in jobs}
    steps = read_steps(fields.get("steps"), walk, allowed.STEP_IF, _check_uses)
    if "steps" in fields.places or "uses" not in fields.places:
        _check_steps(name, fields, walk)
    defaults = _defaults(fields.get("defaults"))
    check_shell(defaults.shell, walk)
    return Job(
        id=name,
        position=position,
        name=fields.get("name"),
        needs=tuple(dict.fromkeys(spelled.get(need.raw.lower(), need.raw) for need in _several(fields))),
        runs_on=_labels(fields.get("runs-on")),
        if_=fields.get("if") or after_success(position, allowed.JOB_IF),
        env=template_map(fields.get("env")),
        defaults=defaults,
        steps=steps,
        outputs=template_map(fields.get("outputs")),
        timeout_minutes=fields.get("timeout-minutes"),
        strategy=_strategy(fields.get("strategy")),
        continue_on_error=fields.get("continue-on-error"),
    )


def _check_steps(name: str, fields: Fields, walk: Walk) -> None:
    if fields.get("steps") == () or ("steps" not in fields.places and "runs-on" in fields.places):
        walk.problem(
            fields.places.get("steps", fields.position),
            f"No steps defined in `steps` and no workflow called in `uses` for the following jobs: {name}",
            "a sequence of steps",
        )


def _labels(runs_on: Any) -> tuple[Template, ...]:
    if isinstance(runs_on, Fields):
        runs_on = runs_on.get("labels")
    if isinstance(runs_on, tuple):
        return tuple(label for label in runs_on if label is not None)
    return () if runs_on is None else (runs_on,)


def _check_uses(uses: str, position: Position, walk: Walk) -> None:
    if isinstance(check_uses_format(uses, position, walk), DockerImage):
        walk.problem(position, f"The action '{uses}' is not supported yet", "a run step, or an action without an image")


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


def _several(job: Any) -> tuple[Template, ...]:
    """What a job needs, each with its place."""
    needs = job.get("needs", ()) if isinstance(job, Fields) else ()
    return (needs,) if isinstance(needs, Template) else tuple(need for need in needs if need is not None)
