"""The value of a tree: operators here, functions in `function`. What an evaluation may make is bounded, so that no text can exhaust the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from firebrick.workflow.expression.function import FUNCTIONS, Budget
from firebrick.workflow.expression.lexer import EvaluationError
from firebrick.workflow.expression.parser import Binary, Call, Index, Literal, Logical, Name, Node, Not
from firebrick.workflow.expression.value import (
    Filtered,
    Value,
    children,
    equals,
    find_property,
    greater,
    is_array,
    is_primitive,
    is_truthy,
    to_number,
    to_text,
)

_COMPARE: Mapping[str, Callable[[Value, Value], bool]] = {
    "==": equals,
    "!=": lambda left, right: not equals(left, right),
    ">": greater,
    "<": lambda left, right: greater(right, left),
    ">=": lambda left, right: greater(left, right) or equals(left, right),
    "<=": lambda left, right: greater(right, left) or equals(left, right),
}


class Evaluation:
    """One evaluation of one tree."""

    def __init__(
        self,
        contexts: Mapping[str, Value],
        functions: Mapping[str, Callable[[Sequence[Value]], Value]],
        budget: Budget | None = None,
    ) -> None:
        self._contexts = contexts
        self._functions = functions
        self._budget = Budget(above=budget)

    def of(self, node: Node) -> Value:
        result: Value
        match node:
            case Literal(value):
                result = value
            case Name(name):
                result = self._contexts.get(name)
            case Not(operand):
                result = not is_truthy(self.of(operand))
            case Binary(operator, left, right):
                sides = self.of(left), self.of(right)
                self._budget.look(*sides)
                result = _COMPARE[operator](*sides)
            case Logical(operator, operands):
                result = self._logical(operator, operands)
            case Index(target, key):
                result = self._index(self.of(target), key)
            case Call():
                result = self._call(node)
        return result

    def _logical(self, operator: str, operands: tuple[Node, ...]) -> Value:
        """The operand that decided, not a boolean: `a && b || c` chooses."""
        value: Value = None
        for operand in operands:
            value = self.of(operand)
            if is_truthy(value) == (operator == "||"):
                break
        return value

    def _index(self, target: Value, key: Node | None) -> Value:
        if key is None:
            found = _star(target)
            self._budget.spend(len(found))
            return found
        index = self.of(key)
        if isinstance(target, Filtered):
            kept = Filtered()
            for item in target:
                exists, value = _find(item, index)
                if exists:
                    kept.append(value)
            self._budget.spend(len(kept))
            return kept
        return _find(target, index)[1]

    def _call(self, call: Call) -> Value:
        if call.name == "case":
            return self._case(call.arguments)
        arguments = [self.of(argument) for argument in call.arguments]
        pure = FUNCTIONS.get(call.name)
        if pure is not None:
            return pure(arguments, self._budget)
        for name, function in self._functions.items():
            if name.lower() == call.name:
                return function(arguments)
        spelled = "hashFiles" if call.name == "hashfiles" else call.name
        raise EvaluationError(f"The function '{spelled}' has no meaning here", position=call.position)

    def _case(self, arguments: tuple[Node, ...]) -> Value:
        """`case(condition, value, ..., default)`: only what is chosen is evaluated; a condition must be a boolean."""
        for condition, chosen in zip(arguments[:-1:2], arguments[1::2], strict=True):
            value = self.of(condition)
            if not isinstance(value, bool):
                raise EvaluationError("case predicate must evaluate to a boolean value")
            if value:
                return self.of(chosen)
        return self.of(arguments[-1])


def _star(target: Value) -> Filtered:
    if isinstance(target, Filtered):
        return Filtered(child for item in target for child in children(item))
    return Filtered(children(target))


def _find(target: Value, index: Value) -> tuple[bool, Value]:
    """The property or element an index names; no such thing is null."""
    if isinstance(target, Mapping):
        return find_property(target, to_text(index)) if is_primitive(index) else (False, None)
    if isinstance(target, Sequence) and is_array(target):
        number = to_number(index)
        if math.isfinite(number) and 0 <= number < len(target):
            return True, target[math.floor(number)]
    return False, None
