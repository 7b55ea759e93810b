"""The functions whose answer is in their parameters. Each takes evaluated arguments, of a count the parser has checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from firebrick.text import is_encodable
from firebrick.workflow.lexer import EvaluationError
from firebrick.workflow.value import Value, equals, fold, is_array, is_primitive, json_text, to_text

MAX_MEMORY = 10 * 1024 * 1024
MAX_JSON_DEPTH = 100


class Budget:
    """What one evaluation may make, in characters and elements."""

    def __init__(self, left: int = MAX_MEMORY) -> None:
        self._left = left

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise EvaluationError("The maximum allowed memory size was exceeded")

    def text(self, text: str) -> str:
        self.spend(len(text))
        return text


Pure = Callable[[Sequence[Value], Budget], Value]


def _contains(arguments: Sequence[Value], _: Budget) -> Value:
    """A part of a string, or an element of an array; strings without case."""
    where, what = arguments
    if is_primitive(where):
        return is_primitive(what) and fold(to_text(what)) in fold(to_text(where))
    if isinstance(where, Sequence) and not isinstance(where, str):
        return any(equals(item, what) for item in where)
    return False


def _starts_with(arguments: Sequence[Value], _: Budget) -> Value:
    where, what = arguments
    return is_primitive(where) and is_primitive(what) and fold(to_text(where)).startswith(fold(to_text(what)))


def _ends_with(arguments: Sequence[Value], _: Budget) -> Value:
    where, what = arguments
    return is_primitive(where) and is_primitive(what) and fold(to_text(where)).endswith(fold(to_text(what)))


_FORMAT = re.compile(r"\{\{|\}\}|\{([0-9]{1,9})(?::[^{}]*)?\}|[{}]")


def _format(arguments: Sequence[Value], budget: Budget) -> Value:
    """`{0}` is the first argument after the text, `{{` and `}}` are braces."""
    pattern = to_text(arguments[0])
    texts = [to_text(argument) for argument in arguments[1:]]

    def replacement(match: re.Match[str]) -> str:
        found = match.group()
        if found in {"{{", "}}"}:
            return found[0]
        if match.group(1) is None:
            raise EvaluationError(f"The following format string is invalid: {pattern}")
        number = int(match.group(1))
        if number >= len(texts):
            raise EvaluationError(
                f"The following format string references more arguments than were supplied: {pattern}"
            )
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
    if not text.strip():
        raise EvaluationError("Error parsing fromJson: the text is empty")
    if _json_depth(text) > MAX_JSON_DEPTH:
        raise EvaluationError(f"Error parsing fromJson: nested deeper than {MAX_JSON_DEPTH}")
    try:
        # Numbers are doubles; the digits of an integer are not bounded by anything else.
        parsed: Value = json.loads(text, parse_int=float)
    except ValueError as error:
        raise EvaluationError(f"Error parsing fromJson: {error}") from error
    if not is_encodable(json.dumps(parsed, ensure_ascii=False)):
        raise EvaluationError("Error parsing fromJson: half a surrogate pair is not a character")
    return parsed


_JSON_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def _json_depth(text: str) -> int:
    """How deep brackets nest outside strings: asked before the parser, which recurses."""
    depth = deepest = 0
    for match in _JSON_NESTING.finditer(text):
        if match.group() in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match.group() in "]}":
            depth -= 1
    return deepest


FUNCTIONS: Mapping[str, Pure] = {
    "contains": _contains,
    "startswith": _starts_with,
    "endswith": _ends_with,
    "format": _format,
    "join": _join,
    "tojson": _to_json,
    "fromjson": _from_json,
}
