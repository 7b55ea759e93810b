"""The functions whose answer is in their parameters. Each takes evaluated arguments, of a count the parser has checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from firebrick.workflow.expression.json_value import parse_json
from firebrick.workflow.expression.lexer import EvaluationError
from firebrick.workflow.expression.value import (
    Value,
    equals,
    fold,
    is_array,
    is_primitive,
    json_text,
    kind,
    to_number,
    to_text,
)

MAX_MEMORY = 10 * 1024 * 1024
MAX_TOGETHER = 64 * 1024 * 1024
"""Of all expressions of one place: an environment, a matrix, a script with many of them."""
_MAX_LOOKED = 32 * 1024 * 1024


class Budget:
    """What one evaluation may make, or several together, in characters and elements. What is spent of one is spent of that `above` it."""

    def __init__(self, left: int = MAX_MEMORY, above: Budget | None = None) -> None:
        self._left = left
        self._above = above
        self._looks = _MAX_LOOKED

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._above is not None:
            self._above.spend(amount)
        if self._left < 0:
            raise EvaluationError("The maximum allowed memory size was exceeded")

    def look(self, *values: Value) -> None:
        """Texts are compared without case, which takes time with their length, and one expression may compare them a thousand times."""
        self._looks -= sum(len(value) for value in values if isinstance(value, str))
        if self._looks < 0:
            raise EvaluationError("The expression compares too much text")

    def text(self, text: str) -> str:
        self.spend(len(text))
        return text


Pure = Callable[[Sequence[Value], Budget], Value]


def _contains(arguments: Sequence[Value], budget: Budget) -> Value:
    """A part of a string, or an element of an array; strings without case."""
    where, what = arguments
    budget.look(where, what)
    if is_primitive(where):
        return is_primitive(what) and fold(to_text(what)) in fold(to_text(where))
    if isinstance(where, Sequence) and not isinstance(where, str):
        return any(map(_equal_to(what), where))
    return False


def _equal_to(what: Value) -> Callable[[Value], bool]:
    """`equals` with one side given: what a text stands for is found once, not for each of many numbers."""
    if not isinstance(what, str):
        return lambda item: equals(item, what)
    number = to_number(what)
    return lambda item: equals(item, what if isinstance(item, str) else number)


def _starts_with(arguments: Sequence[Value], budget: Budget) -> Value:
    where, what = arguments
    budget.look(where, what)
    return is_primitive(where) and is_primitive(what) and fold(to_text(where)).startswith(fold(to_text(what)))


def _ends_with(arguments: Sequence[Value], budget: Budget) -> Value:
    where, what = arguments
    budget.look(where, what)
    return is_primitive(where) and is_primitive(what) and fold(to_text(where)).endswith(fold(to_text(what)))


# A number may have a specifier behind a colon, in which `}}` is a brace.
_FORMAT = re.compile(r"\{\{|\}\}|\{0*+([0-9]{0,3})(?::((?:[^}]|\}\})*+))?\}|[{}]")
_MAX_PLACE = 255


def _format(arguments: Sequence[Value], budget: Budget) -> Value:
    """`{0}` is the first argument after the text, `{{` and `}}` are braces."""
    pattern = to_text(arguments[0])
    texts = [to_text(argument) for argument in arguments[1:]]

    def replacement(match: re.Match[str]) -> str:
        found = match.group()
        if found in {"{{", "}}"}:
            return found[0]
        if not found[1:2].isdigit() or int(match[1] or 0) > _MAX_PLACE:
            raise EvaluationError(f"The following format string is invalid: {pattern}")
        number = int(match[1] or 0)
        if number >= len(texts):
            raise EvaluationError(
                f"The following format string references more arguments than were supplied: {pattern}"
            )
        if match[2]:
            specifiers, of = match[2].replace("}}", "}"), kind(arguments[number + 1])
            raise EvaluationError(f"The format specifiers '{specifiers}' are not valid for objects of type '{of}'")
        return budget.text(texts[number])

    return budget.text(_FORMAT.sub(replacement, pattern))


def _join(arguments: Sequence[Value], budget: Budget) -> Value:
    items = arguments[0]
    given = arguments[1] if len(arguments) > 1 else ","
    separator = to_text(given) if is_primitive(given) else ","
    if isinstance(items, Sequence) and is_array(items):
        texts = [to_text(item) for item in items]
        budget.spend(sum(map(len, texts)) + len(separator) * len(texts))
        return separator.join(texts)
    return to_text(items) if is_primitive(items) else ""


def _to_json(arguments: Sequence[Value], budget: Budget) -> Value:
    return budget.text(json_text(arguments[0]))


def _from_json(arguments: Sequence[Value], budget: Budget) -> Value:
    text = to_text(arguments[0])
    budget.spend(len(text))
    try:
        return parse_json(text, unique=True)
    except ValueError as error:
        raise EvaluationError(f"Error parsing fromJson: {error}") from error


FUNCTIONS: Mapping[str, Pure] = {
    "contains": _contains,
    "startswith": _starts_with,
    "endswith": _ends_with,
    "format": _format,
    "join": _join,
    "tojson": _to_json,
    "fromjson": _from_json,
}
