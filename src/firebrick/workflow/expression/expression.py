"""Expressions: `parse_expression` makes one from text, `Expression.evaluate` gives its value in a `Scope`.

    scope = Scope({"github": {"ref": "refs/heads/main"}})
    parse_expression("github.ref == 'refs/heads/main'").evaluate(scope)    # True

Contexts and results are plain JSON-like values. The errors say which of lexing, parsing and evaluation failed, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from firebrick.workflow.expression.evaluate import Evaluation
from firebrick.workflow.expression.function import Budget
from firebrick.workflow.expression.lexer import EvaluationError, ExpressionError, LexingError, ParsingError
from firebrick.workflow.expression.parser import ANYTHING, Allowed, Node, parse_tree, references
from firebrick.workflow.expression.value import ExactMap, Value, is_truthy, json_text, kind, to_text

__all__ = [
    "ANYTHING",
    "Allowed",
    "EvaluationError",
    "ExactMap",
    "Expression",
    "ExpressionError",
    "LexingError",
    "ParsingError",
    "Scope",
    "Value",
    "is_truthy",
    "json_text",
    "kind",
    "parse_expression",
    "to_text",
]

Function = Callable[[Sequence[Value]], Value]


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression can see: contexts by name, and the functions whose answer is not in their parameters (`success`, `always`,
    `cancelled`, `failure`, `hashFiles`), by name. A context that is not there is null."""

    contexts: Mapping[str, Value] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)

    def with_contexts(self, **contexts: Value) -> Scope:
        return Scope({**self.contexts, **contexts}, self.functions)

    def with_functions(self, **functions: Function) -> Scope:
        return Scope(self.contexts, {**self.functions, **functions})


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. `contexts` and `functions` are the names it uses, lower-cased."""

    text: str
    root: Node
    contexts: frozenset[str]
    functions: frozenset[str]

    def evaluate(self, scope: Scope, budget: Budget | None = None) -> Value:
        """`budget` is what several evaluations may make together. Raises EvaluationError."""
        return Evaluation(scope.contexts, scope.functions, budget).of(self.root)


def parse_expression(text: str, allowed: Allowed = ANYTHING) -> Expression:
    """Parse `text`, the inside of `${{ }}`; names not in `allowed` are errors. Raises LexingError, ParsingError."""
    root = parse_tree(text, allowed)
    contexts, functions = references(root)
    return Expression(text, root, contexts, functions)
