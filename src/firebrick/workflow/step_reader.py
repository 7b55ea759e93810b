"""Steps into records, and what is wrong with one that its shape cannot say: identifiers, what it uses, its shell, for which steps it waits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.problem import Position
from firebrick.workflow.schema.shape import Fields, Walk
from firebrick.workflow.shell import ShellError, find_shell
from firebrick.workflow.syntax import Control, ControlKind, Step
from firebrick.workflow.template import Condition, Template, TemplateMap, parse_condition
from firebrick.workflow.uses import Uses, UsesError, parse_uses

_MAX_ID = 100
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

UsesCheck = Callable[[str, Position, Walk], object]
"""Reports what is wrong with what a step uses."""


def read_steps(written: Any, walk: Walk, condition_at: Allowed, check_uses: UsesCheck) -> tuple[Step, ...]:
    """The steps of one job or composite action. `condition_at` is what an `if` may name."""
    steps = _Steps(walk, condition_at, check_uses)
    for fields in written or ():
        if isinstance(fields, Fields) and fields.places:
            steps.read(fields)
    return tuple(steps.done)


class _Steps:
    """The steps of one list in `done`, as far as they are read."""

    def __init__(self, walk: Walk, condition_at: Allowed, check_uses: UsesCheck) -> None:
        self.done: list[Step] = []
        self._walk = walk
        self._condition_at = condition_at
        self._check_uses = check_uses
        self._places: dict[str, int] = {}  # by id, in small letters

    def read(self, fields: Fields) -> None:
        kind = next((kind for kind in ControlKind if kind in fields.places), None)
        if "parallel" in fields.places:
            self._group(fields)
        elif kind is not None:
            self._control(fields, kind)
        else:
            self._plain(fields, background=fields.get("background", False))

    def _plain(self, fields: Fields, *, background: bool) -> None:
        if (uses := fields.get("uses")) is not None:
            self._check_uses(uses, fields.values_at["uses"], self._walk)
        check_shell(fields.get("shell"), self._walk)
        self._add(fields, replace(_step(fields, self._condition_at), background=background))

    def _group(self, fields: Fields) -> None:
        """Steps that run at once, and one that waits for them."""
        begin = len(self.done)
        for each in fields.get("parallel") or ():
            if isinstance(each, Fields) and each.places:
                self._plain(each, background=True)
        if fields.get("parallel") == ():
            self._walk.problem(fields.places["parallel"], "No steps defined in `parallel`", "a sequence of steps")
        self._add(fields, self._controlling(fields, Control(ControlKind.WAIT, tuple(range(begin, len(self.done))))))

    def _control(self, fields: Fields, kind: ControlKind) -> None:
        written = fields.get(kind)
        if kind is ControlKind.WAIT_ALL:
            if written is False:
                place = fields.values_at[kind]
                self._walk.problem(place, "The value of 'wait-all' must be true or omitted", "true, or nothing")
            written = ()
        targets = written if isinstance(written, tuple) else (written,)
        found = (self._target(target, fields.get("id", "")) for target in targets if target is not None)
        control = Control(kind, tuple(dict.fromkeys(place for place in found if place is not None)))
        self._add(fields, self._controlling(fields, control))

    def _controlling(self, fields: Fields, control: Control) -> Step:
        always = parse_condition(None, fields.position, self._condition_at, otherwise="always()")
        return replace(_step(fields, self._condition_at), if_=always, control=control)

    def _target(self, target: Template, own: str) -> int | None:
        """The place of the step that is meant; None, with what is wrong reported, where it cannot be."""
        called = target.raw[:_MAX_ID]  # no id is longer
        place = self._places.get(called.lower())
        if called.startswith("__"):
            message = f"The identifier '{called}' is invalid. IDs starting with '__' are reserved."
        elif called.lower() == own[:_MAX_ID].lower():
            message = f"Step '{called}' cannot reference itself"
        elif place is None:
            message = f"Step references unknown step ID '{called}'"
        elif not self.done[place].background:
            message = f"Step references step ID '{called}', which does not run in the background"
        else:
            return place
        self._walk.problem(target.position, message, "the id of a step before this one, with `background: true`")
        return None

    def _add(self, fields: Fields, step: Step) -> None:
        if "id" in fields:
            self._check_id(step.id, fields.values_at["id"])
        self.done.append(step)

    def _check_id(self, name: str, position: Position) -> None:
        check_id(name, position, self._walk)
        known = name[:_MAX_ID].lower()
        if known in self._places:
            message = f"The identifier '{name[:_MAX_ID]}' may not be used more than once within the same scope."
            self._walk.problem(position, message, "an identifier of its own for each step of a job")
        self._places.setdefault(known, len(self.done))


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
