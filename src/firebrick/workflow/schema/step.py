"""The shapes of steps: those of a job, and those of a composite action."""

from __future__ import annotations

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.element import boolean, condition, names, number, one_or_more, text
from firebrick.workflow.schema.shape import Key, Kind, Leaf, Record, Shape


def _keys(condition_at: Allowed, at: Allowed) -> dict[str, Key]:
    """What steps that run and steps that use have in common."""
    return {
        "id": Key(text("an identifier", filled=True)),
        "name": Key(text("a text", at)),
        "if": Key(condition(condition_at)),
        "continue-on-error": Key(boolean(at)),
        "env": Key(names("names with their values", at, whole=at)),
    }


def _run_keys(at: Allowed, shell: Key) -> dict[str, Key]:
    return {
        "run": Key(text("a script", at), required=True),
        "shell": shell,
        "working-directory": Key(text("a directory", at)),
    }


def _uses_keys(at: Allowed) -> dict[str, Key]:
    return {
        "uses": Key(text("an action, as actions/checkout@v4", filled=True), required=True),
        "with": Key(names("inputs with their values", at, whole=at)),
    }


_A_STEP = "a step: a mapping with run or uses"

# --- of a job ---

# In a job it is known before anything runs; `defaults.run.shell` may be an expression.
_JOB_SHELL = Key(text("a shell", filled=True, placed=True))
_JOB_STEP = {
    **_keys(allowed.STEP_IF, allowed.STEP),
    "timeout-minutes": Key(number("a number of minutes", allowed.STEP)),
}
_RUN = {**_JOB_STEP, **_run_keys(allowed.STEP, _JOB_SHELL)}
_USES = {**_JOB_STEP, **_uses_keys(allowed.STEP)}
_BACKGROUND = {"background": Key(boolean())}


def _control(name: str, shape: Shape) -> Record:
    """A step that does something with those in the background: it always runs."""
    kept = ("id", "name", "continue-on-error")
    return Record({**{each: _JOB_STEP[each] for each in kept}, name: Key(shape, required=True)})


_GROUP = Shape("a sequence of steps", items=Shape(_A_STEP, records=(Record(_RUN), Record(_USES))))
STEPS = Shape(
    "a sequence of steps",
    items=Shape(
        _A_STEP,
        records=(
            Record({**_RUN, **_BACKGROUND}),
            Record({**_USES, **_BACKGROUND}),
            _control("wait", one_or_more("the id of a step, or several", placed=True)),
            _control("wait-all", Shape("nothing, or true", leaves=(Leaf(Kind.NULL), Leaf(Kind.BOOLEAN)))),
            _control("cancel", text("the id of a step", filled=True, placed=True)),
            Record({"name": _JOB_STEP["name"], "parallel": Key(_GROUP, required=True)}),
        ),
    ),
)

# --- of a composite action ---

_ACTION_SHELL = Key(text("a shell", allowed.ACTION_STEP), required=True)
_ACTION_STEP = _keys(allowed.ACTION_STEP_IF, allowed.ACTION_STEP)
ACTION_STEPS = Shape(
    "a sequence of steps",
    items=Shape(
        _A_STEP,
        records=(
            Record({**_ACTION_STEP, **_run_keys(allowed.ACTION_STEP, _ACTION_SHELL)}),
            Record({**_ACTION_STEP, **_uses_keys(allowed.ACTION_STEP)}),
        ),
    ),
)
