"""The values of expressions and how they turn into one another: JSON's kinds, compared and converted the way the workflow language does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Union

# Numbers are doubles; an int that came from outside is taken as one.
Value = Union[None, bool, int, float, str, Sequence["Value"], Mapping[str, "Value"]]  # noqa: UP007 - recursive at run time


class ExactMap(dict[str, "Value"]):
    """An object whose properties are found by their exact name only (`env`, as on Linux); in others case does not matter."""


class Filtered(list["Value"]):
    """What `*` gives: an array on which a further index works on each element."""


_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX = re.compile(r"0x0*+[0-9A-Fa-f]{0,8}(?<!x)")
_OCTAL = re.compile(r"0o0*+[0-7]{0,11}(?<!o)")
SPACE = " \t\n\r\v\f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(chr(c) for c in range(0x2000, 0x200B))


def kind(value: Value) -> str:
    """Null, Boolean, Number, String, Array or Object."""
    match value:
        case None:
            return "Null"
        case bool():
            return "Boolean"
        case int() | float():
            return "Number"
        case str():
            return "String"
        case Mapping():
            return "Object"
        case _:
            return "Array"


def is_primitive(value: Value) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def is_array(value: Value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_truthy(value: Value) -> bool:
    """Null, false, 0, NaN and the empty string are false, everything else is true, empty arrays and objects too."""
    if isinstance(value, bool | int | float | str):
        return bool(value) and value == value
    return value is not None


def number_text(number: float) -> str:
    """At most 15 significant digits; an exponent of at least 15 or below -4 is written as `1E+15`, `1E-05`."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return f"{number:.15G}" if number else "0"


def to_text(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(as_double(value))
        case str():
            return value
        case _:
            return kind(value)


def as_double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _signed32(number: int) -> float:
    """Hexadecimal and octal numbers are 32 bits wide, the highest being the sign."""
    if number > 0xFFFFFFFF:
        return math.nan
    return float(number - (1 << 32) if number > 0x7FFFFFFF else number)


def parse_number(text: str) -> float:
    """The number a string stands for: empty is 0, `0x` and `0o` are understood, anything else is NaN."""
    text = text.strip(SPACE)
    if not text:
        return 0.0
    if _NUMBER.fullmatch(text):
        return float(text)
    if _HEX.fullmatch(text):
        return _signed32(int(text, 0))
    if _OCTAL.fullmatch(text):
        return _signed32(int(text, 0))
    return {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}.get(text, math.nan)


def to_number(value: Value) -> float:
    match value:
        case None:
            return 0.0
        case bool():
            return 1.0 if value else 0.0
        case int() | float():
            return as_double(value)
        case str():
            return parse_number(value)
        case _:
            return math.nan


def fold(text: str) -> str:
    """Upper case character by character, as an ordinal comparison without case does: nothing gets longer (`ß` stays), and no letter
    becomes one of ASCII (dotless i stays)."""
    upper_text = text.upper()
    if text.isascii() or (len(upper_text) == len(text) and "\u0131" not in text and "\u017f" not in text):
        return upper_text
    return "".join(c if c in "\u0131\u017f" or len(upper := c.upper()) != 1 else upper for c in text)


def equals(left: Value, right: Value) -> bool:
    """`==`: strings without case; of different kinds, primitives as numbers; arrays and objects only with themselves."""
    if isinstance(left, str) and isinstance(right, str):
        return len(left) == len(right) and fold(left) == fold(
            right
        )  # no text is folded for each of many of another length
    if is_primitive(left) and is_primitive(right):
        return to_number(left) == to_number(right)
    return left is right


def greater(left: Value, right: Value) -> bool:
    """`>`: strings without case; of different kinds, primitives as numbers; never true of arrays and objects."""
    if isinstance(left, str) and isinstance(right, str):
        return fold(left) > fold(right)
    if is_primitive(left) and is_primitive(right):
        return to_number(left) > to_number(right)
    return False


def find_property(value: Mapping[str, Value], name: str) -> tuple[bool, Value]:
    """Whether the object has the property, and it. Exact name first, then without case, unless it is an `ExactMap`."""
    if name in value:
        return True, value[name]
    if not isinstance(value, ExactMap):
        for key, item in value.items():
            if equals(key, name):
                return True, item
    return False, None


def children(value: Value) -> Iterator[Value]:
    """What `*` goes over."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from value


_JSON_ESCAPES = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def json_text(value: Value, indent: str = "") -> str:
    """What `toJSON` writes: two spaces a level, numbers as everywhere in the language, non-ASCII characters as they are."""
    inner = indent + "  "
    match value:
        case None:
            return "null"
        case str():
            return json.dumps(value, ensure_ascii=False).translate(_JSON_ESCAPES)
        case bool() | int() | float():
            return to_text(value)
        case Mapping():
            items = [f"{inner}{json_text(key)}: {json_text(item, inner)}" for key, item in value.items()]
            return "{\n" + ",\n".join(items) + f"\n{indent}}}" if items else "{}"
        case _:
            items = [inner + json_text(item, inner) for item in value]
            return "[\n" + ",\n".join(items) + f"\n{indent}]" if items else "[]"
