"""Expressions asked by themselves: a table of answers, then what the table cannot say.

`vectors.jsonl` has one case a line; the answers agree with what GitHub's own published evaluator says, but for what that one gets wrong where the runner does not:
several quotes in one string, `0b` numbers, the exact words about what is not JSON."""

import json
import math
from pathlib import Path

import pytest

from firebrick.workflow.expression.answer import answer
from firebrick.workflow.expression.json_value import parse_json, plain_json

LANGUAGE = Path(__file__).parents[3] / "scenarios" / "language"
CASES = [json.loads(line) for line in (LANGUAGE / "vectors.jsonl").read_text().splitlines()]
CONTEXTS = json.loads((LANGUAGE / "vectors-contexts.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["expr"] for case in CASES])
def test_table(case):
    found, wanted = answer(case["expr"], CONTEXTS), case["answer"]
    if "error" in wanted and wanted["error"]["message"].startswith("Error parsing fromJson"):
        # What follows are the words of Python's parser.
        assert found["error"]["message"].startswith("Error parsing fromJson: ")
        assert found["error"]["kind"] == "evaluation"
    else:
        assert json.dumps(found) == json.dumps(wanted)


def test_table_has_no_case_twice():
    assert len({case["expr"] for case in CASES}) == len(CASES) > 400


def test_no_text_is_null():
    assert answer("", {}) == answer(" \n", {}) == {"kind": "Null", "value": None}


def test_names_are_those_given_and_those_of_the_language():
    assert answer("Foo.bar", {"FOO": {"BAR": 1.0}}) == {"kind": "Number", "value": 1}
    assert answer("github.ref", {}) == {"kind": "Null", "value": None}
    assert answer("foo", {})["error"]["kind"] == "parsing"


def test_the_environment_knows_its_names_exactly():
    assert answer("env.Path || env.PATH", {"env": {"Path": "a", "PATH": "b"}}) == {"kind": "String", "value": "a"}
    assert answer("env.path", {"env": {"PATH": "b"}}) == {"kind": "Null", "value": None}


def test_functions_of_a_job_answer_as_if_nothing_had_failed():
    kinds = {"success()": True, "always()": True, "failure()": False, "cancelled()": False}
    assert {text: answer(text, {})["value"] for text in kinds} == kinds
    assert answer("hashFiles('x')", {})["error"] == {
        "kind": "evaluation",
        "message": "The function 'hashFiles' has no meaning here",
    }


def test_too_long_is_an_error_of_lexing():
    assert answer("1" * 21_001, {}) == {"error": {"kind": "lexing", "message": "Exceeded max expression length 21000"}}


def test_numbers_json_has_no_word_for():
    assert answer("fromJSON('[1e999, -1e999]')", {})["value"] == ["Infinity", "-Infinity"]
    assert plain_json({"a": [math.nan, 1.0, 2.5, True, None]}) == {"a": ["NaN", 1, 2.5, True, None]}
    assert json.dumps(plain_json([1e20, 1e21, -0.0])) == "[100000000000000000000, 1e+21, -0.0]"


@pytest.mark.parametrize("text", ["", " ", "{", "nan", "NaN", "[" * 101 + "]" * 101, '"\\ud800"'])
def test_what_is_no_json(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_json_may_nest_a_hundred_deep():
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json('"' + "[" * 1000 + '"') == "[" * 1000
