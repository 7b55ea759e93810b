"""YAML 1.2 text into nodes that know their place. Anchors and aliases work; what a text may expand to is bounded.

The scalars are read by the core schema of YAML 1.2: `on`, `yes` and `no` are strings, `1.10` is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from firebrick.text import is_encodable
from firebrick.workflow.problem import Position, Problem, WorkflowError

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
MAX_DEPTH = 50

ScalarValue = None | bool | float | str


@dataclass(frozen=True, slots=True)
class ScalarNode:
    value: ScalarValue
    position: Position


@dataclass(frozen=True, slots=True)
class SequenceNode:
    items: tuple[Node, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class MappingNode:
    """Entries in the order of the file, duplicates included. `position` is that of the first key."""

    entries: tuple[tuple[Node, Node], ...]
    position: Position


Node = Union[ScalarNode, SequenceNode, MappingNode]  # noqa: UP007 - refers to itself


def load_yaml(text: str | bytes, file: str) -> Node:
    """The one document of a file. Raises WorkflowError with the first place that is not YAML, or over a limit."""
    content = _decode(text, file)
    lines = content.splitlines()

    def problem(message: str, position: Position, expected: str = "") -> WorkflowError:
        source = lines[position.line - 1] if position.line <= len(lines) else ""
        return WorkflowError((Problem(file, position, message, expected, source),))

    try:
        return _Composer(YAML(typ="safe", pure=True).parse(content)).document()
    except _YamlError as error:
        raise problem(str(error), error.position, error.expected) from error
    except ReaderError as error:
        before = content[: error.position]
        place = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise problem("Control characters are not allowed", place, "printable text") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(mark.line + 1, mark.column + 1) if mark is not None else Position()
        raise problem(_sentence(error), place, _advice(error, lines, place)) from error
    except (ValueError, AttributeError, IndexError, TypeError, NotImplementedError) as error:
        # The scanner trips over some malformed escapes and directives; to the reader of the file that is bad syntax all the same.
        raise problem(f"The text is not YAML: {error}", Position()) from error


def _decode(text: str | bytes, file: str) -> str:
    if len(text) > MAX_BYTES:
        raise WorkflowError((Problem(file, Position(), "Maximum object size exceeded", f"at most {MAX_BYTES} bytes"),))
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        place = Position(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        raise WorkflowError((Problem(file, place, "The file is not UTF-8", "text encoded in UTF-8"),)) from error


def _sentence(error: MarkedYAMLError) -> str:
    parts = [part.strip() for part in (error.context, error.problem) if part]
    text = ", ".join(parts) or "the text is not YAML"
    return f"{text[:1].upper()}{text[1:]}."


def _advice(error: MarkedYAMLError, lines: list[str], place: Position) -> str:
    problem = error.problem or ""
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "'\\t'" in problem or "\t" in line[: place.column]:
        return "spaces, not tabs, for indentation"
    if "mapping values are not allowed" in problem:
        return "a value with ': ' in it to be quoted, or the key on a line of its own at the right indentation"
    if "expected <block end>" in problem or "could not find expected ':'" in problem:
        return "a key followed by ': ', indented like its neighbours"
    if "cannot start any token" in problem:
        return "a value that begins with a special character to be quoted"
    return ""


class _YamlError(Exception):
    def __init__(self, message: str, position: Position, expected: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.expected = expected


class _Composer:
    """Events into nodes. An alias gives the same node again, and counts as all of what is in it."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._open: set[str] = set()
        self._nodes = 0

    def document(self) -> Node:
        root: Node = ScalarNode(None, Position())
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _YamlError("Unexpected second document", _place(event), "one document a file")
                root = self._node(next(self._events), 1)[0]
        return root

    def _node(self, event: Event, depth: int) -> tuple[Node, int]:
        """The node an event begins, and how many levels it has."""
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            raise _YamlError("Maximum object depth exceeded", _place(event), f"at most {MAX_DEPTH} levels")
        before = self._nodes
        self._count(1, event)
        anchor = event.anchor if isinstance(event, NodeEvent) else None
        if anchor is not None:
            self._open.add(anchor)
        node, height = self._content(event, depth)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = (node, self._nodes - before, height)
        return node, height

    def _content(self, event: Event, depth: int) -> tuple[Node, int]:
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, depth)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, depth)
        if isinstance(event, ScalarEvent):
            return ScalarNode(_resolve(event), _place(event)), 1
        raise _YamlError("A value was expected", _place(event))

    def _sequence(self, start: SequenceStartEvent, depth: int) -> tuple[Node, int]:
        items, height = [], 0
        while not isinstance(event := next(self._events), SequenceEndEvent):
            item, below = self._node(event, depth + 1)
            items.append(item)
            height = max(height, below)
        return SequenceNode(tuple(items), _place(start)), height + 1

    def _mapping(self, start: MappingStartEvent, depth: int) -> tuple[Node, int]:
        entries, height = [], 0
        while not isinstance(event := next(self._events), MappingEndEvent):
            key, below_key = self._node(event, depth + 1)
            value, below = self._node(_at_key(next(self._events), event), depth + 1)
            entries.append((key, value))
            height = max(height, below, below_key)
        return MappingNode(tuple(entries), _place(start)), height + 1

    def _alias(self, event: AliasEvent, depth: int) -> tuple[Node, int]:
        name = event.anchor
        if name in self._open:
            raise _YamlError(f"The alias '{name}' is inside what it stands for", _place(event))
        if name not in self._anchors:
            raise _YamlError(f"The alias '{name}' is not defined", _place(event), f"an anchor '&{name}' before it")
        node, size, height = self._anchors[name]
        if depth + height - 1 > MAX_DEPTH:
            raise _YamlError("Maximum object depth exceeded", _place(event), f"at most {MAX_DEPTH} levels")
        self._count(size, event)
        return node, height

    def _count(self, nodes: int, event: Event) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _YamlError(
                "Maximum object size exceeded", _place(event), f"at most {MAX_NODES} values, aliases expanded"
            )


def _at_key(value: Event, key: Event) -> Event:
    """A value that is not there is where its key ends, not where the parser noticed."""
    if isinstance(value, ScalarEvent) and not value.value and value.implicit[0]:
        value.start_mark = key.end_mark
    return value


def _place(event: Event) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+])?\.(?:inf|Inf|INF)")
_BASED = re.compile(r"0o[0-7]{1,300}|0x[0-9a-fA-F]{1,250}")


def resolve_plain(text: str) -> ScalarValue:
    """What an unquoted scalar is in YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text[0] in "+-.0123456789":
        return _resolve_number(text)
    return text


def _resolve_number(text: str) -> ScalarValue:
    if _FLOAT.fullmatch(text):
        return float(text)
    if _BASED.fullmatch(text):
        return float(int(text, 0))
    if match := _INFINITE.fullmatch(text):
        return -math.inf if match.group(1) == "-" else math.inf
    return math.nan if text in {".nan", ".NaN", ".NAN"} else text


_TAG = "tag:yaml.org,2002:"


def _text(event: ScalarEvent) -> str:
    """What the scalar says. Escapes can write characters as pairs of halves, as JSON does; a half alone is no text."""
    text: str = event.value
    if is_encodable(text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _YamlError(
            "Half a surrogate pair is not a character", _place(event), "both halves, or \\U and eight digits"
        ) from None


def _resolve(event: ScalarEvent) -> ScalarValue:
    text = _text(event)
    tag = str(event.ctag) if event.tag is not None else ""
    if tag in {"!", _TAG + "str"}:
        return text
    if not tag:
        return resolve_plain(text) if event.implicit[0] else text
    value = resolve_plain(text)
    kinds: dict[str, type] = {
        _TAG + "int": float,
        _TAG + "float": float,
        _TAG + "bool": bool,
        _TAG + "null": type(None),
    }
    wanted = kinds.get(tag)
    if wanted is None or not isinstance(value, wanted):
        raise _YamlError(f"The value '{text}' cannot be of the type '{tag}'", _place(event))
    return value
