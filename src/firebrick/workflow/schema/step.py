"""The shapes of steps: those of a job, and those of a composite action."""

from __future__ import annotations

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.element import ANYTHING, boolean, condition, names, number, text
from firebrick.workflow.schema.shape import Key, Record, Shape


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

_SEQUENTIAL = "steps that run one after the other"
# In a job it is known before anything runs; `defaults.run.shell` may be an expression.
_JOB_SHELL = Key(text("a shell", filled=True, placed=True))
_JOB_STEP = {
    **_keys(allowed.STEP_IF, allowed.STEP),
    "timeout-minutes": Key(number("a number of minutes", allowed.STEP)),
    "background": Key(boolean(), missing=_SEQUENTIAL),
}
_PARALLEL = tuple(
    Record(
        {"name": Key(text("a text", allowed.STEP)), name: Key(ANYTHING, required=True, missing=_SEQUENTIAL)},
        offered=False,
    )
    for name in ("wait", "wait-all", "cancel", "parallel")
)
STEPS = Shape(
    "a sequence of steps",
    items=Shape(
        _A_STEP,
        records=(
            Record({**_JOB_STEP, **_run_keys(allowed.STEP, _JOB_SHELL)}),
            Record({**_JOB_STEP, **_uses_keys(allowed.STEP)}),
            *_PARALLEL,
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
