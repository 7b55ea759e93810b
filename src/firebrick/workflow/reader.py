"""A workflow file into records: `read_workflow` is the one way in. It finds every mistake it can before it gives up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firebrick.workflow.event.filter import check_events
from firebrick.workflow.graph import check_needs
from firebrick.workflow.job_reader import read_concurrency, read_defaults, read_job, read_permissions, several_needs
from firebrick.workflow.schema.shape import Fields, Walk, in_file_order
from firebrick.workflow.schema.workflow import WORKFLOW
from firebrick.workflow.step_reader import check_id, check_shell, template_map
from firebrick.workflow.syntax import Job, Workflow
from firebrick.workflow.yaml import load_yaml


def read_workflow(text: str | bytes, path: str) -> Workflow:
    """The workflow in `text`; `path` is what messages call the file, and the workflow's name where it has none. Bytes are UTF-8.

    Raises WorkflowError with all problems of the file."""
    root = load_yaml(text, path)
    walk = Walk(path, text)
    fields = walk.read(root, WORKFLOW)
    jobs: dict[str, Job] = {}
    concurrency = None
    if isinstance(fields, Fields):
        jobs = _jobs(fields, walk)
        concurrency = read_concurrency(fields.get("concurrency"), walk)
        check_shell(read_defaults(fields.get("defaults")).shell, walk)
        check_events(fields.get("on"), walk.problem)
    walk.finish(hint="Correct the file; `firebrick workflow check FILE` shows all of its problems again.")
    return Workflow(
        name=fields.get("name") or path,
        path=path,
        on=_events(fields["on"]),
        env=template_map(fields.get("env")),
        defaults=read_defaults(fields.get("defaults")),
        jobs=jobs,
        run_name=fields.get("run-name"),
        permissions=read_permissions(fields.get("permissions")),
        concurrency=concurrency,
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
            jobs[name] = read_job(name, position, job, walk, written.places)
    needs = {name: [(need.raw, need.position) for need in several_needs(written.get(name))] for name in written.places}
    check_needs(needs, walk.problem, written.position)
    return jobs
