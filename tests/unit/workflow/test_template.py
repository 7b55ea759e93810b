import pytest

from firebrick.workflow.expression.expression import ANYTHING, EvaluationError, Scope
from firebrick.workflow.expression.function import MAX_TOGETHER
from firebrick.workflow.matrix import tree_value
from firebrick.workflow.problem import Position
from firebrick.workflow.template import (
    Template,
    TemplateError,
    TemplateList,
    TemplateMap,
    parse_template,
    split_template,
)

SCOPE = Scope({"github": {"n": 1, "s": "text", "o": {"a": 1}, "l": [1], "t": True}})


def template(value):
    return parse_template(value, Position(), ANYTHING)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a ${{ github.n }} b", "a 1 b"),
        ("${{ github.n }}${{ github.s }}", "1text"),
        ("${{ github.s }}", "text"),
        ("${{ '}}' }}", "}}"),
        ("${{ 'a''}}''b' }}!", "a'}}'b!"),
        ("$ {{ not }} one", "$ {{ not }} one"),
        ("}} ${{ github.n }} }}", "}} 1 }}"),
        ("x${{ github.o }}", "xObject"),
        ("x${{ github.l }}", "xArray"),
        ("x${{ github.none }}y", "xy"),
        ("${{ github.t }}", "true"),
        ("${{\n  github.n\n}}", "1"),
    ],
)
def test_text(text, result):
    assert template(text).text(SCOPE) == result


def test_one_expression_keeps_its_type():
    assert template("${{ github.n }}").value(SCOPE) == 1
    assert template("${{ github.o }}").value(SCOPE) == {"a": 1}
    assert template(" ${{ github.n }}").value(SCOPE) == " 1"
    assert template("${{ github.t }}").flag(SCOPE) is True


def test_a_whole_value_must_be_a_scalar_where_a_text_is_needed():
    with pytest.raises(EvaluationError, match="A mapping was not expected"):
        template("${{ github.o }}").text(SCOPE)
    with pytest.raises(EvaluationError, match="A sequence was not expected"):
        template("${{ github.l }}").text(SCOPE)


@pytest.mark.parametrize("text", ["${{", "${{ github.n", "a ${{ 'x }}", "${{ github.n }} ${{ x }", "${{ 'it's' }}"])
def test_not_closed_or_not_right(text):
    with pytest.raises(TemplateError):
        template(text)


def test_split():
    assert split_template("a${{b}}c${{'}}'}}") == [(True, "a"), (False, "b"), (True, "c"), (False, "'}}'")]
    assert split_template("") == []


def test_map_of_one_expression():
    whole = TemplateMap(expression=template("${{ github.o }}"))
    assert whole.texts(SCOPE) == {"a": "1"}
    assert whole
    with pytest.raises(EvaluationError, match="Expected a mapping"):
        TemplateMap(expression=template("${{ github.n }}")).texts(SCOPE)
    assert not TemplateMap()


def test_contexts():
    assert template("${{ needs.a }} ${{ matrix.b }}").contexts == {"needs", "matrix"}
    assert Template("x", Position(), ("x",)).contexts == frozenset()


MUCH = "format('" + "{0}" * 450 + "', github.s)"
"""A hundred bytes of a file make megabytes of text."""


def test_many_expressions_make_no_more_together_than_is_bounded():
    scope = Scope({"github": {"s": "x" * 10_000}})
    each = [template(f"${{{{ {MUCH} }}}}") for _ in range(20)]
    assert len(each[0].text(scope)) == 4_500_000 < MAX_TOGETHER
    places = (
        lambda: TemplateMap({str(number): one for number, one in enumerate(each)}).texts(scope),
        lambda: TemplateList(tuple(each)).texts(scope),
        lambda: tree_value({"a": tuple(each)}, scope),
        lambda: template(f"${{{{ {MUCH} }}}}" * 20).text(scope),
        lambda: template("${{ github.s }} " * 7_000).text(scope),
    )
    for place in places:
        with pytest.raises(EvaluationError, match="maximum allowed memory size"):
            place()
    assert len(TemplateMap({"a": each[0], "b": each[1]}).texts(scope)) == 2
