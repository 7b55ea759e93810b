"""Quotes and variables."""

from __future__ import annotations

import pytest

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.words import MAX_VALUE, Budget, Expander, split

VARIABLES = {"A": "1", "B_2": "two words", "EMPTY": ""}


def expand(text: str, *, quotes: bool = True, escape: str = "\\") -> str:
    return Expander(VARIABLES, escape, 7, Budget()).expand(text, quotes=quotes)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$A-$B_2", "1-two words"),
        ("${A}b", "1b"),
        ("$none", ""),
        ("a$", "a$"),
        ("$1 $@", "$1 $@"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ("\"$A 'x'\"", "1 'x'"),
        ('"a\\b\\"c\\$A"', 'a\\b"c$A'),
        ("a\\ b", "a b"),
        ("a''\"\"b", "ab"),
        ("${A:-x}", "1"),
        ("${none:-x y}", "x y"),
        ("${none:-${other:-$A}}", "1"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${none-x}", "x"),
        ("${A:+x}", "x"),
        ("${none:+x}", ""),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${none:-'}'}", "}"),
    ],
)
def test_expand(text: str, value: str) -> None:
    assert expand(text) == value


def test_where_quotes_are_characters() -> None:
    assert expand('it\'s "$A" \\n \\$A', quotes=False) == 'it\'s "1" \\n $A'


def test_another_escape() -> None:
    assert expand("c:\\$A`$A", escape="`") == "c:\\1$A"


@pytest.mark.parametrize(
    "text", ["${A", "${}", "${A:?x}", "${A%x}", "'a", '"a', "${A:-${A:-x}", "${-}", "${A:-" * 20 + "}" * 20]
)
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand(text)
    assert caught.value.line == 7


def test_a_value_does_not_grow_without_end() -> None:
    budget = Budget()
    value = "x"
    with pytest.raises(DockerfileError, match="more than 64 KiB"):
        for _ in range(100):
            value = Expander({"A": value}, "\\", 1, budget).expand("$A" * 10)
    assert len(value) <= MAX_VALUE


def test_nor_do_all_together() -> None:
    budget = Budget(100)
    expander = Expander({"A": "x" * 60}, "\\", 3, budget)
    assert len(expander.expand("$A")) == 60
    with pytest.raises(DockerfileError, match="together"):
        expander.expand("$A")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" a  b\tc ", ["a", "b", "c"]),
        ("A='b c' d\\ e \"f 'g\" h", ["A='b c'", "d\\ e", '"f \'g"', "h"]),
        ("'a\\' b", ["'a\\'", "b"]),
        ("a\\", ["a\\"]),
        ("'a b", ["'a b"]),
    ],
)
def test_split(text: str, words: list[str]) -> None:
    assert split(text, "\\") == words
