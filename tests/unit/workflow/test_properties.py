"""What holds for every input: nothing crashes, nothing takes more than time in proportion, and what is written comes back."""

import contextlib
import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firebrick.workflow.command.command import CommandReader
from firebrick.workflow.command.file import FileCommandError, parse_pairs
from firebrick.workflow.command.masker import Masker
from firebrick.workflow.expression.expression import ANYTHING, EvaluationError, ExpressionError, Scope, parse_expression
from firebrick.workflow.expression.value import equals, json_text
from firebrick.workflow.glob import select
from firebrick.workflow.matrix import expand_matrix, matches
from firebrick.workflow.problem import Position, WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.template import TemplateError, parse_condition, parse_template

LANGUAGE = Path(__file__).parents[2] / "scenarios" / "language"
FUNCTIONS = {name: lambda _: True for name in ("success", "always", "failure", "cancelled")} | {
    "hashfiles": lambda _: ""
}
SCOPE = Scope(json.loads((LANGUAGE / "contexts.json").read_text()), FUNCTIONS)

# The same examples every time, however busy the machine is.
QUIET = settings(deadline=None, derandomize=True)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9).map(lambda number: number / 8) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
scalars = st.none() | st.booleans() | st.floats() | st.text(max_size=8)
tokens = st.sampled_from(
    [
        "(",
        ")",
        "[",
        "]",
        ".",
        ",",
        "*",
        "!",
        "!=",
        "==",
        "<",
        "<=",
        ">",
        ">=",
        "&&",
        "||",
        "'",
        "''",
        "'a'",
        "'it''s'",
        "1",
        "-1",
        "0x1f",
        "1e9",
        ".5",
        "null",
        "true",
        "NaN",
        "github",
        "env.A",
        ".event",
        "[0]",
        "contains(",
        "format(",
        "'{0}'",
        "'{1}}'",
        "toJSON(",
        "fromJSON(",
        "'[1]'",
        "join(",
        "case(",
        "always()",
        "hashFiles(",
        "foo",
        '"',
        "=",
        "&",
        "|",
        "-",
        "+",
        "é",
    ]
)
expressions = st.lists(tokens, max_size=14).map(" ".join) | st.text(max_size=30)


def error_of(kind, run, *arguments):
    """The error a call ends with, if it is of that kind; any other is the test's."""
    try:
        run(*arguments)
    except kind as error:
        return error
    return None


def evaluate(text):
    return parse_expression(text).evaluate(SCOPE)


def read(text):
    return read_workflow(text, "f.yml")


@given(expressions)
@example("github.event.*.*[0].*")
@example("case(!'', fromJSON('[[]]').*, 1)")
@settings(QUIET, max_examples=400)
def test_expressions_give_a_value_or_an_error_of_theirs(text):
    error = error_of(ExpressionError, evaluate, text)
    assert error is None or error.kind in {"lexing", "parsing", "evaluation"}
    assert error is None or 1 <= error.position <= len(text) + 1


@given(values)
@QUIET
def test_json_there_and_back(value):
    back = parse_expression("fromJSON(toJSON(github.v))").evaluate(Scope({"github": {"v": value}}))
    assert back == value
    assert json.loads(json_text(value)) == value


@given(scalars, scalars)
@QUIET
def test_equality_is_symmetric(left, right):
    assert equals(left, right) == equals(right, left)


@given(values)
@QUIET
def test_values_match_themselves(value):
    assert matches(value, value)


@given(st.lists(st.text(max_size=12), max_size=5))
@QUIET
def test_format_puts_every_argument_in_its_place(texts):
    pattern = "".join(f"<{{{index}}}>" for index in range(len(texts)))
    scope = Scope({"github": {"t": texts}})
    arguments = "".join(f", github.t[{index}]" for index in range(len(texts)))
    assert parse_expression(f"format('{pattern}'{arguments})").evaluate(scope) == "".join(f"<{text}>" for text in texts)


@given(st.text(max_size=40))
@QUIET
def test_any_text_can_be_written_as_a_literal(text):
    assert parse_expression("'" + text.replace("'", "''") + "'").evaluate(SCOPE) == text


@given(
    st.lists(
        st.sampled_from(["${{", "}}", "'", "''", " a ", "github.ref", "${", "{", "$", "!"]) | st.text(max_size=4),
        max_size=10,
    ).map("".join)
)
@settings(QUIET, max_examples=300)
def test_templates_and_conditions(text):
    for parse in (parse_template, parse_condition):
        with contextlib.suppress(TemplateError, EvaluationError):
            parsed = parse(text, Position(), ANYTHING)
            parsed.text(SCOPE) if parse is parse_template else parsed.holds(SCOPE)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*"::,;=%25 \\]##[", "error", "group", "stop-commands", "x"]), max_size=12).map("".join)
)
@settings(QUIET, max_examples=300)
def test_commands_never_fail(line):
    reader = CommandReader("/w")
    for each in (line, f"::{line}", f"::error {line}::{line}", f"::stop-commands::{line}", line):
        assert isinstance(reader.feed(each), tuple)


def escaped(text: str, *, of_property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if of_property else text


@given(st.text(max_size=30), st.text(max_size=30))
@QUIET
def test_an_escaped_command_comes_back(title, message):
    (found,) = CommandReader().feed(f"::error title={escaped(title, of_property=True)}::{escaped(message)}")
    assert found.message == message
    # Spaces around the whole list of properties are not part of it.
    assert found.title.strip() == title.strip()


names = st.text(st.characters(exclude_characters="=\n<", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name[0] != "\ufeff"
)
lines = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=10)


@given(st.lists(st.tuples(names, st.lists(lines, max_size=4)), max_size=5))
@QUIET
def test_pairs_there_and_back(pairs):
    pairs = [(name, [line for line in value if line != "END_OF_VALUE"]) for name, value in pairs]
    text = "".join(
        f"{name}<<END_OF_VALUE\n" + "".join(f"{line}\n" for line in value) + "END_OF_VALUE\n" for name, value in pairs
    )
    assert parse_pairs(text) == [(name, "\n".join(value)) for name, value in pairs]


@given(st.text(st.sampled_from("aB=<\n\r E"), max_size=40))
@settings(QUIET, max_examples=300)
def test_any_file_is_pairs_or_an_error(text):
    error = error_of(FileCommandError, parse_pairs, text)
    assert error is None or str(error).startswith("Invalid ")
    assert error is not None or all(name for name, _ in parse_pairs(text))


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4), st.lists(st.text(max_size=5), max_size=5))
@QUIET
def test_no_secret_is_left(secrets, around):
    secrets = [secret for secret in secrets if secret.strip() and "*" not in secret]
    masker = Masker(secrets)
    text = "".join(piece + secret for piece, secret in zip(around, (*secrets, *secrets, *secrets), strict=False))
    masked = masker.mask(text)
    for part in masked.split("***"):
        assert not any(secret in part for secret in secrets)


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(0, 2) | st.sampled_from("xX"), min_size=1, max_size=3), min_size=1
    )
)
@QUIET
def test_a_matrix_is_the_product_of_its_vectors(vectors):
    size = 1
    for vector in vectors.values():
        size *= len(vector)
    found = expand_matrix(vectors)
    assert len(found) == size
    assert all(each.values[name] in vectors[name] for each in found for name in vectors)


@given(
    st.lists(st.text(st.sampled_from("ab*?[]!/\\-."), max_size=8), max_size=4),
    st.lists(st.text("ab/.", min_size=1, max_size=8), max_size=4),
)
@QUIET
def test_patterns_choose_among_the_paths(patterns, paths):
    assert set(select(patterns, paths)) <= set(paths)


@given(st.text(max_size=200))
@settings(QUIET, max_examples=150)
def test_any_text_is_a_workflow_or_problems(text):
    check_reading(text)


def check_reading(text):
    error = error_of(WorkflowError, read, text)
    assert error is None or error.errors
    for problem in error.errors if error is not None else ():
        assert str(problem).startswith("f.yml (Line: ")
        assert problem.excerpt().count("\n") <= 1


SEEDS = [path.read_text() for path in sorted(LANGUAGE.glob("*valid/*.yml"))]
PIECES = [
    "${{ ",
    " }}",
    "&a ",
    "*a",
    ": ",
    "- ",
    "\n",
    "  ",
    "\t",
    "'",
    '"',
    "{",
    "}",
    "[",
    "]",
    "|",
    ">",
    "#",
    "!!str ",
    "? ",
    "%",
    "\x00",
    "\ufeff",
    "~",
    "é",
    "<<: ",
]


def mutate(text: str, choice: random.Random) -> str:
    for _ in range(choice.randint(1, 6)):
        at = choice.randrange(len(text) + 1)
        match choice.randrange(4):
            case 0:
                text = text[:at] + choice.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[at + choice.randint(1, 12) :]
            case 2:
                end = at + choice.randint(1, 60)
                text = text[:end] + text[at:end] + text[end:]
            case _:
                other = choice.choice(SEEDS)
                start = choice.randrange(len(other) + 1)
                text = text[:at] + other[start : start + choice.randint(1, 80)] + text[at:]
    return text


@pytest.mark.parametrize("seed", range(8))
def test_fuzz_of_files(seed):
    choice = random.Random(seed)
    for _ in range(40):
        check_reading(mutate(choice.choice(SEEDS), choice))


@pytest.mark.parametrize("seed", range(4))
def test_fuzz_of_expressions(seed):
    choice = random.Random(seed)
    pool = [json.loads(line)["expr"] for line in (LANGUAGE / "expressions.jsonl").read_text().splitlines()]
    for _ in range(1500):
        text = choice.choice(pool)
        at, other = choice.randrange(len(text) + 1), choice.choice(pool)
        text = text[:at] + other[choice.randrange(len(other) + 1) :] + (text[at:] if choice.random() < 0.5 else "")
        with contextlib.suppress(ExpressionError):
            parse_expression(text).evaluate(SCOPE)


def seconds(run, argument) -> float:
    best = 1e9
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(ExpressionError, TemplateError, FileCommandError, WorkflowError):
            run(argument)
        best = min(best, time.process_time() - started)
    return best


def feed(line):
    CommandReader().feed(line)


GROWING = {
    "operators": (evaluate, lambda n: " || ".join(["false"] * n), 1000),
    "quotes": (evaluate, lambda n: "'" * n, 8000),
    "spaces": (evaluate, lambda n: "a" + " " * n, 8000),
    "words and spaces": (evaluate, lambda n: "x " * n, 4000),
    "arguments": (evaluate, lambda n: "format('{0}'" + ",1" * n, 4000),
    "braces": (evaluate, lambda n: "format('" + "{" * n + "')", 8000),
    "json of brackets": (evaluate, lambda n: "fromJSON('" + "[]" * n + "')", 8000),
    "json of quotes": (evaluate, lambda n: "fromJSON('" + '"' * n + "')", 8000),
    "dots": (evaluate, lambda n: "github" + "." * n, 8000),
    "openings": (lambda text: parse_template(text, Position(), ANYTHING), lambda n: "${{" * n, 20_000),
    "open strings": (lambda text: parse_template(text, Position(), ANYTHING), lambda n: "${{ '" * n, 20_000),
    "colons": (feed, lambda n: ":" * n, 100_000),
    "properties": (feed, lambda n: "::error " + "a=," * n + "::x", 30_000),
    "percents": (feed, lambda n: "::error::" + "%25" * n, 30_000),
    "brackets": (feed, lambda n: "##[" * n, 30_000),
    "heredocs": (parse_pairs, lambda n: "A<<B\n" * n, 30_000),
    "pairs": (parse_pairs, lambda n: "A=1\n" * n, 30_000),
    "keys": (read, lambda n: "".join(f"k{i}: x\n" for i in range(n)), 500),
    "long scalar": (read, lambda n: "on: " + "x " * n, 20_000),
    "flow": (read, lambda n: "on: [" + "push, " * n + "]", 1000),
    "comments": (read, lambda n: "#\n" * n, 10_000),
    "unclosed": (read, lambda n: "on: '" + "x\n" * n, 5000),
}


@pytest.mark.parametrize("name", GROWING)
def test_time_grows_no_faster_than_the_input(name):
    run, make, size = GROWING[name]
    small, large = seconds(run, make(size)), seconds(run, make(size * 8))
    # Eight times the input: quadratic would be 64 times; below a millisecond the clock says nothing.
    assert large < 30 * max(small, 0.001)
