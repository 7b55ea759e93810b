"""What a job says without expressions, tried out when the file is read: a mistake there fails the job whenever it comes to run.

GitHub tells these mistakes when the job starts, and lets a job pass whose condition keeps it from that. So they are warnings of a file that is
otherwise all right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from firebrick.workflow.container.container import parse_command, parse_port
from firebrick.workflow.container.options import parse_options
from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.matrix import check_matrix, tree_value
from firebrick.workflow.outcome import timeout_s
from firebrick.workflow.problem import Position
from firebrick.workflow.syntax import Container, Job
from firebrick.workflow.template import Template, tree_templates

_NOTHING = Scope({})
_FAILS = "This fails when it comes to run"
Warn = Callable[[Position, str], None]


def check_literals(job: Job, matrix_at: Position, warn: Warn) -> None:
    """Warn of each value that is wrong whatever the contexts hold. `matrix_at` is the place of the matrix, if there is one."""
    tree = job.strategy.matrix if job.strategy is not None else None
    if tree is not None and all(template.is_literal for template in tree_templates(tree)):
        _try(partial(check_matrix, tree_value(tree, _NOTHING)), matrix_at, warn)
    if job.call is None and not job.runs_on and job.runner_group is None:
        warn(job.position, f"{_FAILS}: `runs-on` has no label")
    for minutes in (job.timeout_minutes, job.cancel_timeout_minutes, *(step.timeout_minutes for step in job.steps)):
        if minutes is not None and minutes.is_literal:
            _try(partial(timeout_s, minutes, _NOTHING, 0.0), minutes.position, warn)
    for container in (job.container, *job.services.entries.values()):
        if container is not None:
            _check_container(container, warn)


def _check_container(container: Container, warn: Warn) -> None:
    for template, parse in _parsed(container):
        if template is not None and template.is_literal:
            _try(partial(parse, template.text(_NOTHING)), template.position, warn)


def _parsed(container: Container) -> Iterator[tuple[Template | None, Callable[[str], object]]]:
    yield from ((port, parse_port) for port in container.ports.items)
    yield container.options, parse_options
    yield container.entrypoint, parse_command
    yield container.command, parse_command


def _try(evaluate: Callable[[], object], position: Position, warn: Warn) -> None:
    try:
        evaluate()
    except EvaluationError as error:
        warn(position, f"{_FAILS}: {error}")
