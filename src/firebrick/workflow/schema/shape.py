"""Shapes: what a place in a workflow file may hold, as data; and the walk that compares a file with them, collecting every problem.

`Walk.read` turns a node into plain Python as the shape says: a scalar with a `text` leaf into a `Template` (where expressions are allowed) or a
plain value, a sequence into a tuple, a mapping into a `Fields`. What is wrong is reported and left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.expression.value import to_text
from firebrick.workflow.problem import Position, Problem, WorkflowError
from firebrick.workflow.template import Template, TemplateError, is_always_true, parse_condition, parse_template
from firebrick.workflow.yaml import MappingNode, Node, ScalarNode, ScalarValue, SequenceNode


class Kind(Enum):
    """What a scalar must be, unless it is an expression. `TEXT` takes any scalar as its text."""

    TEXT = "a text"
    FILLED = "a text that is not empty"
    BOOLEAN = "true or false"
    NUMBER = "a number"
    NULL = "nothing"
    CONDITION = "a condition"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar. Without `allowed` it may hold no expression and is read as a plain value (as a Template, if its place is wanted); with it
    as a Template, or a Condition, which is `otherwise` where nothing is said."""

    kind: Kind = Kind.TEXT
    allowed: Allowed | None = None
    choices: tuple[str, ...] = ()
    placed: bool = False
    otherwise: str = "success()"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a mapping. `ignored` is one that is read and has no effect yet, which does no harm: a warning."""

    shape: Shape | Callable[[], Shape]
    required: bool = False
    ignored: str = ""

    def resolve(self) -> Shape:
        return self.shape if isinstance(self.shape, Shape) else self.shape()


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known keys, and with `others` for the rest where it is not None."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    others: Shape | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a place may hold: one of some scalars, a sequence, one of some records. `what` says it in words."""

    what: str
    leaves: tuple[Leaf, ...] = ()
    items: Shape | None = None
    records: tuple[Record, ...] = ()
    expression: Allowed | None = None
    """Where a sequence or mapping may be given by one expression."""


class Fields(dict[str, Any]):
    """What a mapping held, key by key as its shape spells them; with the place of the mapping, of each key, and of what stands behind it."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.places: dict[str, Position] = {}
        self.values_at: dict[str, Position] = {}


def in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once: what an anchor names may be read several times."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.position))


_ADVISED_PROBLEMS = 100


class Walk:
    """One walk over one file. `problems` and `warnings` grow as it goes."""

    def __init__(self, file: str, content: str | bytes) -> None:
        """`content` has been parsed: bytes in it are UTF-8."""
        self._file = file
        self._lines = (content if isinstance(content, str) else content.decode("utf-8-sig")).splitlines()
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def problem(self, position: Position, message: str, expected: str = "") -> None:
        self.problems.append(self._made(position, message, expected))

    def warning(self, position: Position, message: str) -> None:
        self.warnings.append(self._made(position, message, ""))

    def finish(self, hint: str) -> None:
        """Raises WorkflowError where there is any problem."""
        if self.problems:
            raise WorkflowError(in_file_order(self.problems), hint=hint)

    def _made(self, position: Position, message: str, expected: str) -> Problem:
        source = self._lines[position.line - 1] if position.line <= len(self._lines) else ""
        return Problem(self._file, position, message, expected, source)

    def read(self, node: Node, shape: Shape) -> Any:
        """What the node says in this shape; None where it says nothing, or something wrong, which is then in `problems`."""
        match node:
            case ScalarNode():
                return self._scalar(node, shape)
            case SequenceNode(items, position):
                if shape.items is None:
                    return self.problem(position, "A sequence was not expected", shape.what)
                return tuple(self.read(item, shape.items) for item in items)
            case MappingNode(entries, position):
                if not shape.records:
                    return self.problem(position, "A mapping was not expected", shape.what)
                return self._mapping(entries, position, shape)

    def _scalar(self, node: ScalarNode, shape: Shape) -> Any:
        for leaf in shape.leaves:
            if _fits(node, leaf):
                return self._leaf(node, leaf, shape)
        if _has_expression(node.value):
            return self._template(node, shape.expression, shape)
        return self.problem(node.position, f"Unexpected value '{to_text(node.value)}'", shape.what)

    def _leaf(self, node: ScalarNode, leaf: Leaf, shape: Shape) -> Any:
        if leaf.kind is Kind.CONDITION and leaf.allowed is not None:
            return self._condition(node, leaf.allowed, leaf.otherwise)
        if leaf.allowed is not None:
            return self._template(node, leaf.allowed, shape)
        if leaf.placed:
            text = to_text(node.value)
            return Template(text, node.position, (text,))
        return to_text(node.value) if leaf.kind in {Kind.TEXT, Kind.FILLED} else node.value

    def _template(self, node: ScalarNode, allowed: Allowed | None, shape: Shape) -> Any:
        """A scalar that may hold expressions, or must not: where `allowed` is None, what it names is wrong before it is wrong itself."""
        try:
            template = parse_template(node.value, node.position, allowed or Allowed())
        except TemplateError as error:
            self.problem(node.position, str(error), error.expected if allowed else shape.what)
            if not _takes_text(shape):
                self.problem(node.position, f"Unexpected value '{to_text(node.value)}'", shape.what)
            return None
        if allowed is None:
            return self.problem(node.position, "A template expression is not allowed in this context", shape.what)
        return template

    def _condition(self, node: ScalarNode, allowed: Allowed, otherwise: str) -> Any:
        try:
            condition = parse_condition(node.value, node.position, allowed, otherwise=otherwise)
        except TemplateError as error:
            return self.problem(node.position, str(error), error.expected)
        if is_always_true(condition):
            self.warning(
                node.position,
                "The condition is always true: it has text outside of ${{ }}, which makes a text of all of it.",
            )
        return condition

    def _mapping(self, entries: tuple[tuple[Node, Node], ...], position: Position, shape: Shape) -> Fields:
        records = list(shape.records)
        fields = Fields(position)
        seen: set[str] = set()
        for key_node, value in entries:
            name = self._key(key_node, seen)
            if name is None:
                continue
            matching = [record for record in records if name in record.keys]
            if matching:
                records = matching
                self._known(name, key_node.position, value, matching[0].keys[name], fields)
            elif (others := records[0].others) is not None:
                fields.places[name] = key_node.position
                fields[name] = self.read(value, others)
            else:
                self.problem(key_node.position, f"Unexpected value '{name}'", self._advice(name, records, seen))
        self._complete(fields, records, {name.lower() for name in seen})
        return fields

    def _advice(self, name: str, records: Iterable[Record], seen: Container[str]) -> str:
        # Looking for near names takes time; a file with very many wrong ones is helped by the first.
        return _nearest(name, records, seen) if len(self.problems) < _ADVISED_PROBLEMS else ""

    def _key(self, node: Node, seen: set[str]) -> str | None:
        """The name of a key, or None where it is no key. Keys differ by more than case."""
        if not isinstance(node, ScalarNode):
            self.problem(node.position, "Expected a scalar value", "a name as the key")
            return None
        name = to_text(node.value)
        if _has_expression(name):
            self.problem(
                node.position, "A template expression is not allowed in this context", "a plain name as the key"
            )
            return None
        if name.lower() in seen:
            self.problem(node.position, f"'{name}' is already defined", "each key once")
            return None
        seen.add(name.lower())
        return name

    def _known(self, name: str, position: Position, value: Node, key: Key, fields: Fields) -> None:
        fields.places[name] = position
        fields.values_at[name] = value.position
        if key.ignored:
            self.warning(position, f"'{name}' has no effect yet: {key.ignored}")
        read = self.read(value, key.resolve())
        if read is not None:
            fields[name] = read

    def _complete(self, fields: Fields, records: list[Record], seen: set[str]) -> None:
        if len(records) > 1:
            counted = [name for record in records for name in record.keys]
            names = sorted({name for name in counted if counted.count(name) == 1})
            self.problem(
                fields.position,
                f"There's not enough info to determine what you meant. Add one of these properties: {', '.join(names)}",
            )
            return
        for name, key in records[0].keys.items():
            if key.required and name.lower() not in seen:
                self.problem(fields.position, f"Required property is missing: {name}")


def _has_expression(value: object) -> bool:
    return isinstance(value, str) and "${{" in value


def _fits(node: ScalarNode, leaf: Leaf) -> bool:
    if _has_expression(node.value) and leaf.kind is not Kind.CONDITION:
        return leaf.allowed is not None
    if leaf.choices:
        return to_text(node.value) in leaf.choices
    return leaf.kind not in _TESTS or _TESTS[leaf.kind](node.value)


def _takes_text(shape: Shape) -> bool:
    return any(leaf.kind in {Kind.TEXT, Kind.FILLED} and not leaf.choices for leaf in shape.leaves)


_TESTS: Mapping[Kind, Callable[[ScalarValue], bool]] = {
    Kind.FILLED: lambda value: bool(to_text(value)),
    Kind.BOOLEAN: lambda value: isinstance(value, bool),
    Kind.NUMBER: lambda value: isinstance(value, float),
    Kind.NULL: lambda value: value is None,
}


def _nearest(name: str, records: Iterable[Record], seen: Container[str]) -> str:
    """`'x'?` where a key is near, and else all there are."""
    if name == "<<":
        return "the keys themselves: the language has anchors and aliases, and no merge keys"
    keys = sorted({each for record in records for each in record.keys})
    short = name[:64].lower()
    near = difflib.get_close_matches(short, keys, n=1, cutoff=0.6)
    if near and near[0] != short and near[0].lower() in seen:  # it must be very near to be meant once more
        near = difflib.get_close_matches(short, near, n=1, cutoff=0.85)
    return f"'{near[0]}'?" if near else f"one of {', '.join(keys)}"
