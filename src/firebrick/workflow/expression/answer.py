"""An expression asked by itself: its value, or what is wrong with it, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping

from firebrick.workflow.expression.expression import (
    Allowed,
    ExactMap,
    ExpressionError,
    Function,
    Scope,
    Value,
    kind,
    parse_expression,
)
from firebrick.workflow.expression.json_value import plain_json
from firebrick.workflow.expression.parser import ANYTHING, CONTEXTS

# A job in which nothing has failed yet. There is no workspace: `hashFiles` has no answer.
_FUNCTIONS: Mapping[str, Function] = {
    "success": lambda _: True,
    "always": lambda _: True,
    "failure": lambda _: False,
    "cancelled": lambda _: False,
}


def answer(text: str, contexts: Mapping[str, Value]) -> dict[str, object]:
    """`{"kind": ..., "value": ...}` of an expression, or `{"error": {"kind": "lexing", "parsing" or "evaluation", "message": ...}}`.

    The names it may use are those of `contexts` and of the language; one of the language that is not given is null. No text is null."""
    try:
        value = _value(text, contexts)
        return {"kind": kind(value), "value": plain_json(value)}
    except ExpressionError as error:
        return {"error": {"kind": error.kind, "message": str(error)}}


def _value(text: str, contexts: Mapping[str, Value]) -> Value:
    if not text.strip():
        return None
    given = {name.lower(): value for name, value in contexts.items()}
    environment = given.get("env")
    if isinstance(environment, Mapping):
        given["env"] = ExactMap(environment)
    allowed = Allowed(CONTEXTS | given.keys(), ANYTHING.functions)
    return parse_expression(text, allowed).evaluate(Scope(given, _FUNCTIONS))
