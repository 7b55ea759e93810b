"""`firebrick workflow eval`: expressions with their values, one JSON line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from firebrick.cli.errors import FAILURE, SUCCESS, USAGE, UsageError
from firebrick.workflow.expression.answer import answer
from firebrick.workflow.expression.expression import Value
from firebrick.workflow.expression.json_value import parse_json

MAX_INPUT: Final = 4 << 20


class InputError(ValueError):
    """JSON that is not what was asked for."""


def evaluate(
    expressions: Annotated[
        list[str] | None, typer.Argument(metavar="EXPR", help="Expressions, without `${{ }}`.", show_default=False)
    ] = None,
    contexts: Annotated[
        Path | None, typer.Option(help="A JSON file with the contexts by name.", metavar="F.json", show_default=False)
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help='Read lines `{"expr": ..., "contexts": {...}}` from stdin instead.')
    ] = False,
) -> None:
    """Evaluate expressions. Each gives a line: `{"kind": "String", "value": ...}`, or `{"error": {"kind": "lexing", "message": ...}}`. Exit
    status 1 where an expression has an error; with --batch, 2 where a line is no question."""
    if batch and expressions:
        raise UsageError("expressions and --batch are both given", hint="With --batch they are read from stdin.")
    if not batch and not expressions:
        raise UsageError("there is no expression to evaluate", hint="firebrick workflow eval \"github.ref == 'x'\"")
    given = _contexts_of(contexts) if contexts is not None else {}
    raise typer.Exit(_answer_lines(sys.stdin.buffer, given) if batch else _answer_all(expressions or [], given))


def _answer_all(expressions: list[str], contexts: Mapping[str, Value]) -> int:
    answers = [answer(text, contexts) for text in expressions]
    for each in answers:
        _write(each)
    return FAILURE if any("error" in each for each in answers) else SUCCESS


def _answer_lines(stream: BinaryIO, contexts: Mapping[str, Value]) -> int:
    """An answer for each line, in order and at once, so that a program may ask one after the other."""
    status = SUCCESS
    for line in _lines(stream):
        try:
            text, own = _question(line)
            _write(answer(text, {**contexts, **own}))
        except ValueError as error:
            _write({"error": {"kind": "input", "message": f"The line is no question: {error}"}})
            status = USAGE
    return status


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines that are not blank; None for one that is too long."""
    while line := stream.readline(MAX_INPUT + 1):
        too_long = len(line) > MAX_INPUT
        while len(line) > MAX_INPUT and not line.endswith(b"\n"):
            line = stream.readline(MAX_INPUT + 1)
        if too_long:
            yield None
        elif line.strip():
            yield line


def _question(line: bytes | None) -> tuple[str, Mapping[str, Value]]:
    """Raises ValueError."""
    question = _object(line, "a question")
    text = question.get("expr")
    if not isinstance(text, str):
        raise InputError('it needs "expr" with a text')
    contexts = question.get("contexts")
    if contexts is not None and not isinstance(contexts, Mapping):
        raise InputError('"contexts" is no object')
    return text, contexts or {}


def _contexts_of(path: Path) -> Mapping[str, Value]:
    """Raises UsageError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_INPUT + 1)
        return _object(content if len(content) <= MAX_INPUT else None, "contexts")
    except OSError as error:
        raise UsageError(f"cannot take contexts from {path}: {error.strerror}") from error
    except ValueError as error:
        hint = 'It is a JSON object, as {"github": {"ref": "refs/heads/main"}}.'
        raise UsageError(f"cannot take contexts from {path}: {error}", hint=hint) from error


def _object(content: bytes | None, what: str) -> Mapping[str, Value]:
    """The JSON object in `content`, which is None where it was too long. Raises ValueError."""
    if content is None:
        raise InputError(f"it has more than {MAX_INPUT} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError("it is not text in UTF-8") from error
    value = parse_json(text)
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is an object")
    return value


def _write(found: Mapping[str, object]) -> None:
    typer.echo(json.dumps(found))
    sys.stdout.flush()
