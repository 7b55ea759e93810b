"""Values of a workflow file that may hold `${{ }}`: parsed once with their place, evaluated against a scope as often as needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from firebrick.workflow.expression import Expression, Scope, Value, is_truthy, parse_expression, to_text
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

    def value(self, scope: Scope) -> Value:
        """The value with its type: a scalar that is one whole expression keeps the type of its result, text with expressions in it is a
        string. Raises EvaluationError."""
        if len(self.parts) == 1:
            part = self.parts[0]
            return part.evaluate(scope) if isinstance(part, Expression) else part
        return "".join(to_text(p.evaluate(scope) if isinstance(p, Expression) else p) for p in self.parts)

    def text(self, scope: Scope) -> str:
        """The value as a string, as GitHub writes it into scripts and environments. Raises EvaluationError."""
        return to_text(self.value(scope))

    def flag(self, scope: Scope) -> bool:
        return is_truthy(self.value(scope))


@dataclass(frozen=True, slots=True)
class TemplateMap:
    """A mapping of names to templates (`env`, `with`, `outputs`), or one expression that gives the whole mapping."""

    entries: Mapping[str, Template] = field(default_factory=dict)
    expression: Template | None = None

    def texts(self, scope: Scope) -> dict[str, str]:
        """Every entry as a string. Raises EvaluationError; also where the one expression gives no mapping."""
        if self.expression is not None:
            value = self.expression.value(scope)
            return {k: to_text(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
        return {name: template.text(scope) for name, template in self.entries.items()}

    def __bool__(self) -> bool:
        return bool(self.entries) or self.expression is not None


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
