"""Steps into records, and what is wrong with one that its shape cannot say: identifiers, what it uses, its shell."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.problem import Position
from firebrick.workflow.schema.shape import Fields, Walk
from firebrick.workflow.shell import ShellError, find_shell
from firebrick.workflow.syntax import Step
from firebrick.workflow.template import Condition, Template, TemplateMap, parse_condition
from firebrick.workflow.uses import Uses, UsesError, parse_uses

_MAX_ID = 100
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

UsesCheck = Callable[[str, Position, Walk], object]
"""Reports what is wrong with what a step uses."""


def read_steps(written: Any, walk: Walk, condition_at: Allowed, check_uses: UsesCheck) -> tuple[Step, ...]:
    """The steps of one job or composite action. `condition_at` is what an `if` may name."""
    steps: list[Step] = []
    seen: set[str] = set()
    for fields in written or ():
        if not isinstance(fields, Fields) or not fields:
            continue
        if (name := fields.get("id")) is not None:
            _check_step_id(name, fields.values_at["id"], seen, walk)
        if (uses := fields.get("uses")) is not None:
            check_uses(uses, fields.values_at["uses"], walk)
        check_shell(fields.get("shell"), walk)
        steps.append(_step(fields, condition_at))
    return tuple(steps)


def _check_step_id(name: str, position: Position, seen: set[str], walk: Walk) -> None:
    check_id(name, position, walk)
    if name.lower() in seen:
        message = f"The identifier '{name}' may not be used more than once within the same scope."
        walk.problem(position, message, "an identifier of its own for each step of a job")
    seen.add(name.lower())


def check_id(name: str, position: Position, walk: Walk) -> None:
    """Report an identifier of a job or a step that cannot be one."""
    if not _ID.fullmatch(name) or len(name) >= _MAX_ID:
        walk.problem(
            position,
            f"The identifier '{name[:_MAX_ID]}' is invalid. IDs may only contain alphanumeric characters, '_', and '-'. "
            f"IDs must start with a letter or '_' and must be less than {_MAX_ID} characters.",
        )
    elif name.startswith("__"):
        walk.problem(position, f"The identifier '{name}' is invalid. IDs starting with '__' are reserved.")


def _step(fields: Fields, condition_at: Allowed) -> Step:
    return Step(
        id=fields.get("id", ""),
        position=fields.position,
        name=fields.get("name"),
        if_=fields.get("if") or after_success(fields.position, condition_at),
        run=fields.get("run"),
        uses=fields.get("uses"),
        with_=template_map(fields.get("with")),
        shell=fields.get("shell"),
        env=template_map(fields.get("env")),
        working_directory=fields.get("working-directory"),
        timeout_minutes=fields.get("timeout-minutes"),
        continue_on_error=fields.get("continue-on-error"),
    )


def after_success(position: Position, at: Allowed) -> Condition:
    """The condition of what has none."""
    return parse_condition(None, position, at)


def check_uses_format(uses: str, position: Position, walk: Walk) -> Uses | None:
    """What a step uses; None, with what is wrong reported, where that is of no known form."""
    try:
        return parse_uses(uses)
    except UsesError as error:
        walk.problem(position, str(error), "an action with its version, as actions/checkout@v4")
        return None


def check_shell(shell: Template | None, walk: Walk) -> None:
    if shell is None or not shell.is_literal:
        return
    try:
        find_shell(shell.raw)
    except ShellError as error:
        walk.problem(shell.position, str(error), error.hint)


def template_map(value: Any) -> TemplateMap:
    """Names with their values, or the one expression that gives them."""
    if isinstance(value, Template):
        return TemplateMap(expression=value)
    return TemplateMap({name: item for name, item in value.items() if item is not None} if value else {})
