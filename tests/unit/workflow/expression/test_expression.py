"""Expressions: the table of the language, then limits and what the table cannot say."""

import json
import math
from pathlib import Path

import pytest

from firebrick.workflow.expression.expression import (
    Allowed,
    EvaluationError,
    ExactMap,
    ExpressionError,
    ParsingError,
    Scope,
    parse_expression,
)

LANGUAGE = Path(__file__).parents[3] / "scenarios" / "language"
CASES = [json.loads(line) for line in (LANGUAGE / "expressions.jsonl").read_text().splitlines()]


def scope() -> Scope:
    contexts = json.loads((LANGUAGE / "contexts.json").read_text())
    functions = {
        "success": lambda _: True,
        "always": lambda _: True,
        "failure": lambda _: False,
        "cancelled": lambda _: False,
        "hashFiles": lambda patterns: f"hash of {' '.join(patterns)}",
    }
    return Scope({**contexts, "env": ExactMap(contexts["env"])}, functions)


@pytest.mark.parametrize("case", CASES, ids=[case["expr"] for case in CASES])
def test_table(case):
    if "error" in case:
        with pytest.raises(ExpressionError) as raised:
            parse_expression(case["expr"]).evaluate(scope())
        assert {"kind": raised.value.kind, "message": str(raised.value)} == case["error"]
    else:
        value = parse_expression(case["expr"]).evaluate(scope())
        assert value == case["value"]
        assert isinstance(value, bool) == isinstance(case["value"], bool)


def test_table_has_no_case_twice():
    assert len({case["expr"] for case in CASES}) == len(CASES)


def test_names_not_allowed_here_are_errors():
    allowed = Allowed(frozenset({"github"}), {"always": (0, 0)})
    assert parse_expression("always() && github.ref", allowed).contexts == {"github"}
    with pytest.raises(ParsingError, match="Unrecognized named-value: 'secrets'"):
        parse_expression("secrets.X", allowed)
    with pytest.raises(ParsingError, match="Unrecognized function: 'hashFiles'"):
        parse_expression("hashFiles('x')", allowed)


def test_what_an_expression_uses_is_known():
    expression = parse_expression("contains(Needs.build.outputs.x, matrix.y) || FAILURE()")
    assert expression.contexts == {"needs", "matrix"}
    assert expression.functions == {"contains", "failure"}


def test_numbers_from_outside_may_be_ints():
    assert (
        parse_expression("github.n == '9007199254740993'").evaluate(Scope({"github": {"n": 9007199254740993}})) is True
    )
    assert parse_expression("format('{0}', github.n)").evaluate(Scope({"github": {"n": 10**400}})) == "Infinity"


def test_a_nan_of_a_context_is_false():
    assert parse_expression("github.n || 'false'").evaluate(Scope({"github": {"n": math.nan}})) == "false"


def test_function_without_meaning_here():
    with pytest.raises(EvaluationError, match="'always' has no meaning here"):
        parse_expression("always()").evaluate(Scope())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(" * 60 + "1" + ")" * 60, "Exceeded max expression depth 50"),
        ("!" * 60 + "1", "Exceeded max expression depth 50"),
        ("github" + ".a" * 60, "Exceeded max expression depth 50"),
        ("github" + "[github" * 60 + "]" * 60, "Exceeded max expression depth 50"),
        ("toJSON(" * 60 + "1" + ")" * 60, "Exceeded max expression depth 50"),
        (" == ".join("1" * 60), "Exceeded max expression depth 50"),
    ],
    ids=["group", "not", "property", "index", "call", "comparison"],
)
def test_limits_of_text(text, message):
    with pytest.raises(ParsingError, match=message):
        parse_expression(text)


def test_long_chains_of_logic_are_not_deep():
    assert parse_expression(" || ".join(["false"] * 500 + ["'end'"])).evaluate(Scope()) == "end"


def test_what_an_evaluation_makes_is_bounded():
    growing = "'" + "x" * 100 + "'"
    for _ in range(12):
        growing = f"format('{{0}}{{0}}{{0}}', {growing})"
    with pytest.raises(EvaluationError, match="The maximum allowed memory size was exceeded"):
        parse_expression(growing).evaluate(Scope())


def test_json_that_nests_too_deep_is_refused():
    with pytest.raises(EvaluationError, match="nested deeper than 100"):
        parse_expression("fromJSON(github.x)").evaluate(Scope({"github": {"x": "[" * 100_000}}))
    inside_a_string = json.dumps("[" * 1000)
    assert parse_expression("fromJSON(github.x)").evaluate(Scope({"github": {"x": inside_a_string}})) == "[" * 1000


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"\udfff": 1}', r'["\ude00\ud83d"]'])
def test_from_json_makes_no_half_characters(text):
    with pytest.raises(EvaluationError, match="half a surrogate pair"):
        parse_expression("fromJSON(github.x)").evaluate(Scope({"github": {"x": text}}))


def test_from_json_joins_halves_that_belong_together():
    scope = Scope({"github": {"x": r'"\ud83d\ude00"'}})
    assert parse_expression("fromJSON(github.x)").evaluate(scope) == "\N{GRINNING FACE}"
