"""JSON into values of the language, and values into JSON; bounded, because whoever wrote the text may mean harm."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from firebrick.text import is_encodable
from firebrick.workflow.expression.value import Value, as_double, fold, number_text

MAX_DEPTH = 100


def parse_json(text: str, *, unique: bool = False) -> Value:
    """The value of a JSON text; numbers are doubles. Of names that differ only in case all but the first are left out where they shall be
    `unique`. Raises ValueError with a sentence, also for what nests deeper than 100 or holds half a character."""
    if not text.strip():
        raise ValueError("the text is empty")
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    # The digits of an integer are not bounded by anything else.
    hook = _unique if unique else None
    value: Value = json.loads(text, parse_int=float, parse_constant=_no_number, object_pairs_hook=hook)
    if not is_encodable(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half a surrogate pair is not a character")
    return value


def _unique(pairs: Sequence[tuple[str, Value]]) -> Value:
    items = dict(pairs)
    spellings: dict[str, str] = {}
    for name in items:
        spellings.setdefault(fold(name), name)
    return items if len(spellings) == len(items) else {name: items[name] for name in spellings.values()}


def _no_number(name: str) -> Value:
    raise ValueError(f"{name} is no number of JSON")


_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def _depth(text: str) -> int:
    """How deep brackets nest outside strings: asked before the parser, which recurses."""
    depth = deepest = 0
    for match in _NESTING.finditer(text):
        if match.group() in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match.group() in "]}":
            depth -= 1
    return deepest


# Up to here a double that is whole is written with all its digits.
_MAX_WHOLE = 1e21


def plain_json(value: Value) -> object:
    """What `json.dumps` writes as this value: whole numbers without a fraction; JSON has no word for NaN and the infinities, which are
    the strings `NaN`, `Infinity`, `-Infinity`."""
    match value:
        case None | bool() | str():
            return value
        case int() | float():
            return _number(as_double(value))
        case Mapping():
            return {name: plain_json(item) for name, item in value.items()}
        case Sequence():
            return [plain_json(item) for item in value]


def _number(number: float) -> object:
    if not math.isfinite(number):
        return number_text(number)
    is_negative_zero = number == 0 and math.copysign(1, number) < 0
    return int(number) if number.is_integer() and abs(number) < _MAX_WHOLE and not is_negative_zero else number
