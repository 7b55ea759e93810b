import hashlib
import time

import pytest

from firebrick.workflow.expression.expression import EvaluationError, Scope, parse_expression
from firebrick.workflow.glob import parse_pattern, select
from firebrick.workflow.hashing import HashMemo, HashNeededError, combine

PATHS = ["b.txt", "a.txt", "src/main.c", "src/lib/x.c", "src/lib/x.h", ".hidden/y.c", "src-old/z.c", "docs/[1].md"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.txt"], ["a.txt", "b.txt"]),
        (["**/*.c"], [".hidden/y.c", "src/lib/x.c", "src/main.c", "src-old/z.c"]),
        (["src/**/*.c"], ["src/lib/x.c", "src/main.c"]),
        (["src"], ["src/lib/x.c", "src/lib/x.h", "src/main.c"]),
        (["src/"], ["src/lib/x.c", "src/lib/x.h", "src/main.c"]),
        (["./src/*.c"], ["src/main.c"]),
        (["src/l?b/x.[ch]"], ["src/lib/x.c", "src/lib/x.h"]),
        (["src/lib/x.[!c]"], ["src/lib/x.h"]),
        (["src/lib/x.[a-d]"], ["src/lib/x.c"]),
        (["**/*.c", "!src/lib"], [".hidden/y.c", "src/main.c", "src-old/z.c"]),
        (["!src", "src/main.c"], ["src/main.c"]),
        (["src", "!src/lib/**", "src/lib/x.h"], ["src/lib/x.h", "src/main.c"]),
        (["# src", "", "  a.txt  "], ["a.txt"]),
        (["/work/a.txt"], ["a.txt"]),
        (["/etc/a.txt"], []),
        (["docs/\\[1\\].md"], ["docs/[1].md"]),
        (["docs/[1].md"], []),
        (["docs/[1.md"], []),
        (
            ["**"],
            [".hidden/y.c", "a.txt", "b.txt", "docs/[1].md", "src/lib/x.c", "src/lib/x.h", "src/main.c", "src-old/z.c"],
        ),
        (
            ["*"],
            [".hidden/y.c", "a.txt", "b.txt", "docs/[1].md", "src/lib/x.c", "src/lib/x.h", "src/main.c", "src-old/z.c"],
        ),
        (["s*c/m*n.*"], ["src/main.c"]),
        (["SRC"], []),
        ([], []),
    ],
)
def test_select(patterns, expected):
    assert select(patterns, PATHS, "/work") == expected


def test_no_pattern_takes_long():
    star, deep = parse_pattern("*a" * 60 + "b"), parse_pattern("**/a/" * 60 + "b")
    started = time.perf_counter()
    assert not star.matches("a" * 250)
    assert not deep.matches("/".join("a" * 500))
    assert time.perf_counter() - started < 2


def test_digest_of_digests():
    one, two = hashlib.sha256(b"1"), hashlib.sha256(b"2")
    assert combine([one.hexdigest(), two.hexdigest()]) == hashlib.sha256(one.digest() + two.digest()).hexdigest()
    assert combine([]) == ""


def test_hash_files_asks_and_remembers():
    memo = HashMemo()
    scope = Scope({"github": {"x": "b"}}).with_functions(hashfiles=memo)
    expression = parse_expression("format('{0}-{1}', hashFiles('a', github.x), hashFiles('c'))")
    asked = []
    for answer in ("first", "second"):
        with pytest.raises(HashNeededError) as raised:
            expression.evaluate(scope)
        asked.append(raised.value.patterns)
        memo.answer(raised.value.patterns, answer)
    assert asked == [("a", "b"), ("c",)]
    assert expression.evaluate(scope) == "first-second"


def test_hash_files_of_nothing():
    with pytest.raises(EvaluationError, match="at least one pattern"):
        HashMemo()([" ", "# comment"])


def test_directories_of_any_number_in_a_row_are_one():
    """Each place of a pattern is one a match may be at: a long row would be gone through for each name of each path."""
    pattern = parse_pattern("**/" * 10_000 + "a/**/**/b")
    assert pattern is not None
    assert len(pattern.segments) == 4
    assert pattern.matches("x/y/a/z/b")
    assert not pattern.matches("x/y/z/b")
