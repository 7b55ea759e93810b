"""Jobs into records, and what is wrong with one that its shape cannot say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from firebrick.workflow.container.reader import read_container, read_services
from firebrick.workflow.fork import check_fork
from firebrick.workflow.literal import check_literals
from firebrick.workflow.problem import Position
from firebrick.workflow.reference import TargetError, parse_target
from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.shape import Fields, Walk
from firebrick.workflow.step_reader import after_success, check_shell, check_uses_format, read_steps, template_map
from firebrick.workflow.syntax import Call, Concurrency, Environment, Job, Permissions, RunDefaults, Strategy
from firebrick.workflow.template import Template, TemplateMap


def read_job(name: str, position: Position, fields: Fields, walk: Walk, jobs: Iterable[str]) -> Job:
    """One job; `jobs` are the names of all there are, as they are spelled."""
    spelled = {job.lower(): job for job in jobs}
    steps = read_steps(fields.get("steps"), walk, allowed.STEP_IF, _check_uses)
    if "steps" in fields.places or "uses" not in fields.places:
        _check_steps(name, fields, walk)
    defaults = read_defaults(fields.get("defaults"))
    check_shell(defaults.shell, walk)
    job = Job(
        id=name,
        position=position,
        name=fields.get("name"),
        needs=tuple(dict.fromkeys(spelled.get(need.raw.lower(), need.raw) for need in several_needs(fields))),
        runs_on=_labels(fields.get("runs-on")),
        runner_group=_group(fields.get("runs-on")),
        if_=fields.get("if") or after_success(position, allowed.JOB_IF),
        env=template_map(fields.get("env")),
        defaults=defaults,
        steps=steps,
        outputs=template_map(fields.get("outputs")),
        timeout_minutes=fields.get("timeout-minutes"),
        cancel_timeout_minutes=fields.get("cancel-timeout-minutes"),
        strategy=_strategy(fields.get("strategy")),
        continue_on_error=fields.get("continue-on-error"),
        permissions=read_permissions(fields.get("permissions")),
        concurrency=read_concurrency(fields.get("concurrency"), walk),
        environment=_environment(fields.get("environment")),
        container=read_container(fields.get("container"), walk),
        services=read_services(fields.get("services"), walk),
        call=_call(fields, walk),
    )
    check_fork(job, walk.problem)
    if not walk.problems:  # of a file with mistakes there may be nothing where one is
        check_literals(job, _matrix_place(fields), walk.warning)
    return job


def _matrix_place(fields: Fields) -> Position:
    strategy = fields.get("strategy")
    return strategy.places.get("matrix", strategy.position) if isinstance(strategy, Fields) else fields.position


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


def _group(runs_on: Any) -> Template | None:
    return runs_on.get("group") if isinstance(runs_on, Fields) else None


def _check_uses(uses: str, position: Position, walk: Walk) -> None:
    check_uses_format(uses, position, walk)


def _strategy(fields: Any) -> Strategy | None:
    if isinstance(fields, Template):
        return Strategy(expression=fields)
    if not isinstance(fields, Fields):
        return None
    return Strategy(
        matrix=fields.get("matrix"),
        fail_fast=fields.get("fail-fast"),
        max_parallel=fields.get("max-parallel"),
    )


def read_defaults(fields: Any) -> RunDefaults:
    run = fields.get("run") if isinstance(fields, Fields) else None
    if not isinstance(run, Fields):
        return RunDefaults()
    return RunDefaults(shell=run.get("shell"), working_directory=run.get("working-directory"))


def read_permissions(written: Any) -> Permissions | None:
    if isinstance(written, str):
        return Permissions(others=written.removesuffix("-all"))
    return Permissions(scopes=dict(written)) if isinstance(written, Fields) else None


def read_concurrency(written: Any, walk: Walk) -> Concurrency | None:
    if isinstance(written, Template):
        return Concurrency(group=written)
    if not isinstance(written, Fields) or "group" not in written:
        return None
    cancel = written.get("cancel-in-progress")
    queue = written.get("queue")
    if queue is not None and queue.raw == "max" and cancel is not None and cancel.parts == (True,):
        message = "'queue: max' cannot be combined with 'cancel-in-progress: true'."
        walk.problem(written.places["queue"], message, "one of the two")
    return Concurrency(group=written["group"], cancel_in_progress=cancel, queue=queue)


def _environment(written: Any) -> Environment | None:
    if isinstance(written, Template):
        return Environment(name=written) if written.raw else None
    if not isinstance(written, Fields) or "name" not in written:
        return None
    return Environment(name=written["name"], url=written.get("url"), deployment=written.get("deployment"))


def _call(fields: Fields, walk: Walk) -> Call | None:
    if "uses" not in fields:
        return None
    try:
        parse_target(fields["uses"])
    except TargetError as error:
        walk.problem(fields.values_at["uses"], str(error), error.expected)
    secrets = fields.get("secrets")
    return Call(
        uses=fields["uses"],
        position=fields.values_at["uses"],
        with_=template_map(fields.get("with")),
        secrets=TemplateMap() if isinstance(secrets, str) else template_map(secrets),
        inherit_secrets=secrets == "inherit",
    )


def several_needs(job: Any) -> tuple[Template, ...]:
    """What a job needs, each with its place."""
    needs = job.get("needs", ()) if isinstance(job, Fields) else ()
    return (needs,) if isinstance(needs, Template) else tuple(need for need in needs if need is not None)
