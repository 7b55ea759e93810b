"""Tokens into a tree. Operators from weak to strong: `||`, `&&`, `==` `!=`, `<` `<=` `>` `>=`, `!`, then index, dereference and call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Union

from firebrick.workflow.expression.lexer import ParsingError, Token, TokenKind, located, tokenize
from firebrick.workflow.expression.value import Value

MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Literal:
    value: Value


@dataclass(frozen=True, slots=True)
class Name:
    """A context, lower-cased."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`name` is lower-cased."""

    name: str
    arguments: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Index:
    """`target[key]`, `target.key`; a key of None is `*`."""

    target: Node
    key: Node | None


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logical:
    """`&&` or `||` over all the operands of one chain."""

    operator: str
    operands: tuple[Node, ...]


Node = Union[Literal, Name, Call, Index, Not, Binary, Logical]  # noqa: UP007 - refers to itself

_MANY = 255
# Functions with the least and the greatest number of parameters.
PURE_FUNCTIONS: Mapping[str, tuple[int, int]] = {
    "contains": (2, 2),
    "startswith": (2, 2),
    "endswith": (2, 2),
    "format": (1, _MANY),
    "join": (1, 2),
    "tojson": (1, 1),
    "fromjson": (1, 1),
    "case": (3, _MANY),
}
STATUS_FUNCTIONS: Mapping[str, tuple[int, int]] = {
    "always": (0, 0),
    "cancelled": (0, 0),
    "success": (0, 0),
    "failure": (0, 0),
}
HASH_FUNCTION: Mapping[str, tuple[int, int]] = {"hashfiles": (1, _MANY)}
CONTEXTS = frozenset(
    {"github", "env", "job", "jobs", "steps", "runner", "secrets", "strategy", "matrix", "needs", "inputs", "vars"}
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be named in an expression: contexts, and functions besides those that need nothing but their parameters."""

    contexts: frozenset[str] = frozenset()
    functions: Mapping[str, tuple[int, int]] = field(default_factory=dict)


ANYTHING = Allowed(CONTEXTS, {**STATUS_FUNCTIONS, **HASH_FUNCTION})


def parse_tree(text: str, allowed: Allowed) -> Node:
    """Raises LexingError, ParsingError."""
    reading = _Reading(text, allowed, tokenize(text))
    root = reading.chain()
    if reading.token.kind is not TokenKind.END:
        raise reading.unexpected()
    return root


def nodes(root: Node) -> Iterator[Node]:
    """Every node of a tree."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        match node:
            case Call(arguments=several) | Logical(operands=several):
                pending.extend(several)
            case Index(target, key):
                pending.extend((target,) if key is None else (target, key))
            case Not(operand):
                pending.append(operand)
            case Binary(_, left, right):
                pending.extend((left, right))
            case _:
                pass


def references(root: Node) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the contexts and of the functions a tree uses."""
    found = list(nodes(root))
    return (
        frozenset(node.name for node in found if isinstance(node, Name)),
        frozenset(node.name for node in found if isinstance(node, Call)),
    )


# Weakest first; each level's operands are of the next one.
_LEVELS = ({"||"}, {"&&"}, {"==", "!="}, {"<", "<=", ">", ">="})


class _Reading:
    """One pass over the tokens. Depth counts what nests in the text, so neither parsing nor evaluating can exhaust the stack."""

    def __init__(self, text: str, allowed: Allowed, tokens: list[Token]) -> None:
        self._text = text
        self._allowed = allowed
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        return self._tokens[self._at]

    def unexpected(self) -> ParsingError:
        token = self.token
        if token.kind is TokenKind.END:
            last = self._tokens[self._at - 1] if self._at else token
            return self._error("Unexpected end of expression", last)
        return self._error("Unexpected symbol", token)

    def chain(self, level: int = 0) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        operands, operators = [self.chain(level + 1)], []
        while self.token.kind is TokenKind.OPERATOR and self.token.text in _LEVELS[level]:
            operators.append(self._next().text)
            operands.append(self.chain(level + 1))
        if not operators:
            return operands[0]
        if level < 2:  # `||` and `&&`
            return Logical(operators[0], tuple(operands))
        return self._fold(operands, operators)

    def _fold(self, operands: list[Node], operators: list[str]) -> Node:
        if len(operators) > MAX_DEPTH:
            raise self._too_deep()
        node = operands[0]
        for operator, operand in zip(operators, operands[1:], strict=True):
            node = Binary(operator, node, operand)
        return node

    def _unary(self) -> Node:
        if self._take("!"):
            self._enter()
            node: Node = Not(self._unary())
            self._depth -= 1
            return node
        is_literal = self.token.kind is TokenKind.LITERAL
        node = self._primary()
        return node if is_literal else self._postfix(node)

    def _postfix(self, node: Node) -> Node:
        """The indices behind a primary. Each makes the tree one deeper, so a long chain counts as deep."""
        links = 0
        while True:
            if self._take("."):
                node = Index(node, self._property())
            elif self._take("["):
                node = Index(node, self._subscript())
            else:
                break
            links += 1
            if self._depth + links >= MAX_DEPTH:
                raise self._too_deep()
        return node

    def _property(self) -> Node | None:
        if self.token.kind is TokenKind.STAR:
            self._next()
            return None
        if self.token.kind is not TokenKind.PROPERTY:
            raise self.unexpected()
        return Literal(self._next().text)

    def _subscript(self) -> Node | None:
        if self.token.kind is TokenKind.STAR:
            self._next()
            self._expect("]")
            return None
        self._enter()
        key = self.chain()
        self._expect("]")
        self._depth -= 1
        return key

    def _primary(self) -> Node:
        token = self.token
        if token.kind is TokenKind.LITERAL:
            return Literal(self._next().value)
        if token.kind is TokenKind.NAME:
            return self._name()
        if token.kind is TokenKind.FUNCTION:
            return self._call()
        if self._take("("):
            self._enter()
            node = self.chain()
            self._expect(")")
            self._depth -= 1
            return node
        raise self.unexpected()

    def _name(self) -> Node:
        token = self._next()
        name = token.text.lower()
        if name not in self._allowed.contexts:
            raise self._error("Unrecognized named-value", token)
        return Name(name)

    def _call(self) -> Node:
        token = self._next()
        name = token.text.lower()
        bounds = PURE_FUNCTIONS.get(name) or self._allowed.functions.get(name)
        if bounds is None:
            raise self._error("Unrecognized function", token)
        self._expect("(")
        self._enter()
        arguments = self._arguments()
        self._depth -= 1
        least, most = bounds
        if len(arguments) < least:
            raise self._error("Too few parameters supplied", token)
        if len(arguments) > most:
            raise self._error("Too many parameters supplied", token)
        if name == "case" and len(arguments) % 2 == 0:
            raise self._error("Even number of parameters supplied, requires an odd number of parameters", token)
        return Call(name, tuple(arguments), token.position)

    def _arguments(self) -> list[Node]:
        if self._take(")"):
            return []
        arguments = [self.chain()]
        while self._take(","):
            arguments.append(self.chain())
        self._expect(")")
        return arguments

    def _next(self) -> Token:
        token = self.token
        self._at += 1
        return token

    def _take(self, operator: str) -> bool:
        if self.token.kind is TokenKind.OPERATOR and self.token.text == operator:
            self._at += 1
            return True
        return False

    def _expect(self, operator: str) -> None:
        if not self._take(operator):
            raise self.unexpected()

    def _enter(self) -> None:
        self._depth += 1
        if self._depth >= MAX_DEPTH:
            raise self._too_deep()

    def _too_deep(self) -> ParsingError:
        return ParsingError(f"Exceeded max expression depth {MAX_DEPTH}", position=self.token.position)

    def _error(self, message: str, token: Token) -> ParsingError:
        return ParsingError(located(message, token.text, token.position, self._text), position=token.position)
