"""Expression text into tokens, in one pass."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum

from firebrick.workflow.expression.value import SPACE, Value, parse_number


class ExpressionError(Exception):
    """Anything wrong with an expression. `kind` is `lexing`, `parsing` or `evaluation`; `position` counts from 1 within the expression."""

    kind = "evaluation"

    def __init__(self, message: str, *, position: int = 1) -> None:
        super().__init__(message)
        self.position = position


class LexingError(ExpressionError):
    """A character or a token that is none of the language."""

    kind = "lexing"


class ParsingError(ExpressionError):
    """Tokens in an order that means nothing, an unknown name, the wrong number of parameters, or over a limit."""

    kind = "parsing"


class EvaluationError(ExpressionError):
    """The expression is right, and what it was asked to work on is not."""


class TokenKind(Enum):
    LITERAL = "literal"
    NAME = "name"
    FUNCTION = "function"
    PROPERTY = "property"
    OPERATOR = "operator"
    STAR = "star"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    kind: TokenKind
    text: str
    position: int
    value: Value = None


MAX_LENGTH = 21_000
# What ends a word. A quote and a star do not: `github'x'` is one wrong word.
_END = rf"{re.escape(SPACE)}()\[\],!<>=&|"
_TOKEN = re.compile(
    rf"(?P<space>[{re.escape(SPACE)}]+)|(?P<string>'(?:[^']|'')*+')|(?P<operator>&&|\|\||[!=<>]=|[!<>()\[\],])|(?P<star>\*)"
    rf"|(?P<number>[+\-.0-9][^{_END}]*)|(?P<word>[^'{_END}.][^{_END}.]*|[=&|][^{_END}.]*)"
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_OPEN = re.compile(r"\s*\(")
_CONSTANTS: dict[str, Value] = {"null": None, "true": True, "false": False, "NaN": math.nan, "Infinity": math.inf}


def located(message: str, token: str, position: int, text: str) -> str:
    return f"{message}: '{token}'. Located at position {position} within expression: {text}"


def tokenize(text: str) -> list[Token]:
    """Tokens of `text`, the last one of kind END. Raises LexingError."""
    if len(text) > MAX_LENGTH:
        raise LexingError(f"Exceeded max expression length {MAX_LENGTH}", position=MAX_LENGTH + 1)
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        # After a name or a closing bracket a dot is a dereference; elsewhere it may begin a number.
        if text[at] == "." and tokens and _may_be_dereferenced(tokens[-1]):
            tokens.append(Token(TokenKind.OPERATOR, ".", at + 1))
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:  # a string that does not end
            raise LexingError(located("Unexpected symbol", text[at:], at + 1, text), position=at + 1)
        if match.lastgroup != "space":
            tokens.append(_token(match, tokens, text))
        at = match.end()
    tokens.append(Token(TokenKind.END, "", len(text) + 1))
    return tokens


def _may_be_dereferenced(token: Token) -> bool:
    return token.kind in {TokenKind.NAME, TokenKind.PROPERTY, TokenKind.STAR} or token.text in {")", "]"}


def _token(match: re.Match[str], before: list[Token], text: str) -> Token:
    word, position = match.group(), match.start() + 1
    match match.lastgroup:
        case "string":
            return Token(TokenKind.LITERAL, word, position, word[1:-1].replace("''", "'"))
        case "operator":
            return Token(TokenKind.OPERATOR, word, position)
        case "star":
            return Token(TokenKind.STAR, word, position)
        case "number":
            return _number(word, position, text)
        case _:
            return _word(word, position, before, text, match.end())


def _number(word: str, position: int, text: str) -> Token:
    number = parse_number(word)
    if math.isnan(number):
        raise LexingError(located("Unexpected symbol", word, position, text), position=position)
    return Token(TokenKind.LITERAL, word, position, number)


def _word(word: str, position: int, before: list[Token], text: str, end: int) -> Token:
    if not _WORD.fullmatch(word):
        raise LexingError(located("Unexpected symbol", word, position, text), position=position)
    if before and before[-1].text == "." and before[-1].kind is TokenKind.OPERATOR:
        return Token(TokenKind.PROPERTY, word, position)
    if word in _CONSTANTS:
        return Token(TokenKind.LITERAL, word, position, _CONSTANTS[word])
    is_call = _OPEN.match(text, end) is not None
    return Token(TokenKind.FUNCTION if is_call else TokenKind.NAME, word, position)
