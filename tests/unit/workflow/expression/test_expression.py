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
from firebrick.workflow.expression.value import equals, fold

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


@pytest.mark.parametrize(
    "text",
    ["contains(github.items, github.big)", "github.objects.*[github.big]", "contains(github.numbers, github.digits)"],
)
def test_a_long_text_is_not_gone_through_for_each_of_many_values(monkeypatch, text):
    looked = []

    class Text(str):
        """A text that counts how often all of it is asked for."""

        __slots__ = ()

        def upper(self):
            looked.append("upper")
            return super().upper()

        def strip(self, chars=None):
            looked.append("strip")
            return super().strip(chars)

    contexts = {
        "items": ["", "a"] * 1000,
        "objects": [{"a": 1}] * 1000,
        "numbers": [1.0] * 1000,
        "big": Text("b" * 1000),
        "digits": Text("1" * 1000),
    }
    value = parse_expression(text).evaluate(Scope({"github": contexts}))
    assert not value
    assert len(looked) <= 1


@pytest.mark.parametrize(
    "text", ["stra\xdfe", "\u0131x", "\u017f", "\xe9\u0101", "\ufb01\xe9", "abc", "\u03c2\u03a3\u03c3"]
)
def test_folding_is_character_by_character(text):
    kept = "\u0131\u017f"
    assert fold(text) == "".join(c if c in kept or len(c.upper()) != 1 else c.upper() for c in text)


@pytest.mark.parametrize(
    ("what", "found"), [("1", True), ("0x1", True), ("2", False), ("A", True), ("", True), ("x", False), (1.0, True)]
)
def test_contains_compares_as_the_operator_does(what, found):
    items = ["a", 1.0, None]
    assert (
        parse_expression("contains(github.items, github.what)").evaluate(
            Scope({"github": {"items": items, "what": what}})
        )
        is found
    )
    assert any(equals(item, what) for item in items) is found


@pytest.mark.parametrize(
    "once", ["contains(github.big, 'x')", "startsWith(github.big, 'x')", "github.big == github.big"]
)
def test_an_expression_compares_so_much_text_and_no_more(once):
    scope = Scope({"github": {"big": "\xdf" * 100_000}})
    with pytest.raises(EvaluationError, match="compares too much"):
        parse_expression(" && ".join([f"({once} || true)"] * 400)).evaluate(scope)
    parse_expression(" && ".join([f"({once} || true)"] * 20)).evaluate(scope)
