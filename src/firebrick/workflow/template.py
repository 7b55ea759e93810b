"""Values of a workflow file that may hold `${{ }}`: parsed once with their place, evaluated against a scope as often as needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from firebrick.workflow.expression.expression import (
    Allowed,
    EvaluationError,
    Expression,
    ExpressionError,
    Scope,
    Value,
    is_truthy,
    parse_expression,
    to_text,
)
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget
from firebrick.workflow.expression.parser import STATUS_FUNCTIONS, Call, Logical
from firebrick.workflow.expression.value import is_array, is_primitive
from firebrick.workflow.problem import Position

Part = Value | Expression


@dataclass(frozen=True, slots=True)
class Template:
    """One scalar. `raw` is the text of the file; `parts` are literals and expressions in order."""

    raw: str
    position: Position
    parts: tuple[Part, ...]

    @property
    def is_literal(self) -> bool:
        return not any(isinstance(part, Expression) for part in self.parts)

    @property
    def contexts(self) -> frozenset[str]:
        """Names of the contexts it uses."""
        return frozenset(name for part in self.parts if isinstance(part, Expression) for name in part.contexts)

    def value(self, scope: Scope, budget: Budget | None = None) -> Value:
        """The value with its type: a scalar that is one whole expression keeps the type of its result, text with expressions in it is a
        string. `budget` is what it may make together with others. Raises EvaluationError."""
        if len(self.parts) == 1:
            part = self.parts[0]
            return part.evaluate(scope, budget) if isinstance(part, Expression) else part
        budget = budget or Budget(MAX_TOGETHER)
        return "".join([budget.text(_part_text(part, scope, budget)) for part in self.parts])

    def text(self, scope: Scope, budget: Budget | None = None) -> str:
        """The value as a string, as GitHub writes it into scripts and environments. Raises EvaluationError, also where it is no scalar."""
        value = self.value(scope, budget)
        if isinstance(value, Mapping):
            raise EvaluationError("A mapping was not expected")
        if not is_primitive(value):
            raise EvaluationError("A sequence was not expected")
        return to_text(value)

    def flag(self, scope: Scope) -> bool:
        return is_truthy(self.value(scope))


def _part_text(part: Part, scope: Scope, budget: Budget) -> str:
    return to_text(part.evaluate(scope, budget) if isinstance(part, Expression) else part)


@dataclass(frozen=True, slots=True)
class TemplateMap:
    """A mapping of names to templates (`env`, `with`, `outputs`), or one expression that gives the whole mapping."""

    entries: Mapping[str, Template] = field(default_factory=dict)
    expression: Template | None = None

    def texts(self, scope: Scope) -> dict[str, str]:
        """Every entry as a string. Raises EvaluationError; also where the one expression gives no mapping."""
        if self.expression is not None:
            value = self.expression.value(scope)
            if not isinstance(value, Mapping):
                raise EvaluationError("Expected a mapping")
            return {name: to_text(item) for name, item in value.items()}
        budget = Budget(MAX_TOGETHER)
        return {name: template.text(scope, budget) for name, template in self.entries.items()}

    def __bool__(self) -> bool:
        return bool(self.entries) or self.expression is not None


@dataclass(frozen=True, slots=True)
class TemplateList:
    """A sequence of templates (`ports`, `volumes`), or one expression that gives the whole sequence."""

    items: tuple[Template, ...] = ()
    expression: Template | None = None

    def texts(self, scope: Scope) -> tuple[str, ...]:
        """Every item as a string. Raises EvaluationError; also where the one expression gives no sequence of scalars."""
        if self.expression is None:
            budget = Budget(MAX_TOGETHER)
            return tuple([template.text(scope, budget) for template in self.items])
        value = self.expression.value(scope)
        if not isinstance(value, Sequence) or not is_array(value):
            raise EvaluationError("Expected a sequence")
        if not all(map(is_primitive, value)):
            raise EvaluationError("Expected a scalar value")
        return tuple(map(to_text, value))


@dataclass(frozen=True, slots=True)
class Condition:
    """An `if`. Where the text names no status function, it holds only after success: `success() && (...)`."""

    raw: str
    position: Position
    expression: Expression

    def holds(self, scope: Scope) -> bool:
        """Raises EvaluationError."""
        return is_truthy(self.expression.evaluate(scope))


TemplateTree = Template | tuple["TemplateTree", ...] | Mapping[str, "TemplateTree"]


def tree_templates(tree: TemplateTree) -> Iterator[Template]:
    """Every scalar of a tree, in its order."""
    if isinstance(tree, Template):
        yield tree
    else:
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from tree_templates(item)


class TemplateError(Exception):
    """A text whose `${{ }}` cannot be read; `expected` says what would have been right."""

    def __init__(self, message: str, expected: str = "") -> None:
        super().__init__(message)
        self.expected = expected


_OPEN, _CLOSE = "${{", "}}"
_NOT_CLOSED = (
    "The expression is not closed. An unescaped ${{ sequence was found, but the closing }} sequence was not found."
)


def parse_template(value: Value, position: Position, allowed: Allowed) -> Template:
    """A scalar of a file as a template. Raises TemplateError."""
    if not isinstance(value, str) or _OPEN not in value:
        return Template(to_text(value), position, (value,))
    parts = tuple(part if is_text else _expression(part, allowed) for is_text, part in split_template(value))
    return Template(value, position, parts)


def split_template(text: str) -> list[tuple[bool, str]]:
    """Texts (True) and insides of `${{ }}` (False) in order; no empty texts. A `}}` within a string of the expression does not end it.
    Raises TemplateError where one is not closed."""
    parts: list[tuple[bool, str]] = []
    at = 0
    while (start := text.find(_OPEN, at)) >= 0:
        if start > at:
            parts.append((True, text[at:start]))
        at = _end_of_expression(text, start + len(_OPEN))
        parts.append((False, text[start + len(_OPEN) : at - len(_CLOSE)]))
    if at < len(text):
        parts.append((True, text[at:]))
    return parts


_STRING_OR_CLOSE = re.compile(r"'[^']*'|(\}\})")


def _end_of_expression(text: str, at: int) -> int:
    for match in _STRING_OR_CLOSE.finditer(text, at):
        if match.group(1):
            return match.end()
    raise TemplateError(_NOT_CLOSED, "`${{ expression }}`; a text with a quote in it has the quote twice: 'it''s'")


def _expression(text: str, allowed: Allowed) -> Expression:
    if not text.strip():
        raise TemplateError("An expression was expected", "something between `${{` and `}}`")
    try:
        return parse_expression(text.strip(), allowed)
    except ExpressionError as error:
        raise TemplateError(str(error), _names_expected(str(error), allowed)) from error


def _names_expected(message: str, allowed: Allowed) -> str:
    if message.startswith("Unrecognized named-value"):
        return f"one of the contexts allowed here: {', '.join(sorted(allowed.contexts))}; texts are in single quotes"
    if message.startswith("Unrecognized function"):
        return f"one of the functions allowed here: {', '.join(sorted([*_PURE_NAMES, *_spelled(allowed.functions)]))}"
    return next(
        (advice for begin, advice in _SYMBOLS.items() if message.startswith(f"Unexpected symbol: '{begin}")), ""
    )


# What people write who know other languages, by its beginning.
_SYMBOLS: Final = {
    '"': "texts in single quotes",
    "=": "== to compare",
    "&": "&& for both",
    "|": "|| for either",
    "+": "format('{0}{1}', a, b) to join texts; there is no arithmetic",
}


_PURE_NAMES = ("case", "contains", "endsWith", "format", "fromJSON", "join", "startsWith", "toJSON")


def _spelled(names: Iterable[str]) -> list[str]:
    return ["hashFiles" if name == "hashfiles" else name for name in names]


def parse_condition(value: Value, position: Position, allowed: Allowed, *, otherwise: str = "success()") -> Condition:
    """An `if`: the text is an expression with or without `${{ }}` around it; nothing is `otherwise`. Where that is `success()`, a text
    that names no status function holds only after success. Raises TemplateError."""
    raw = to_text(value)
    text = _condition_text(raw.strip()) if raw.strip() else otherwise
    expression = _expression(text, allowed)
    if otherwise == "success()" and not expression.functions & STATUS_FUNCTIONS.keys():
        root = Logical("&&", (Call("success", (), 1), expression.root))
        expression = replace(expression, root=root, functions=expression.functions | {"success"})
    return Condition(raw, position, expression)


def is_always_true(condition: Condition) -> bool:
    """An `if` with text around its `${{ }}` is a text, and a text that is not empty is true: never what its author meant."""
    parts = split_template(condition.raw.strip()) if _OPEN in condition.raw else []
    return len(parts) > 1


def _condition_text(text: str) -> str:
    if _OPEN not in text:
        return text
    parts = split_template(text)
    if len(parts) == 1:
        return parts[0][1].strip()
    # As everywhere, text around expressions makes a text of it all.
    pattern = ""
    arguments: list[str] = []
    for is_text, part in parts:
        if is_text:
            pattern += part.replace("'", "''").replace("{", "{{").replace("}", "}}")
        else:
            pattern += f"{{{len(arguments)}}}"
            arguments.append(part.strip())
    return "format(" + ", ".join([f"'{pattern}'", *arguments]) + ")"
