"""Patterns of `COPY` and of `.dockerignore`."""

from __future__ import annotations

import time

import pytest

from firebrick.dockerfile.pattern import Ignored, PatternError, matching

PATHS = ["a.txt", "b.txt", "c.md", "dir", "dir/a.txt", "dir/in/a.txt", "[x]", "a\nb.txt"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["a.txt", "b.txt", "a\nb.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[a-b].txt", ["a.txt", "b.txt"]),
        ("[^a].txt", ["b.txt"]),
        ("d*", ["dir"]),
        ("*/*.txt", ["dir/a.txt"]),
        ("**/*.txt", ["dir/a.txt"]),
        ("\\[x\\]", ["[x]"]),
        ("a.t(x)t", []),
    ],
)
def test_copy(pattern: str, found: list[str]) -> None:
    assert matching(pattern, PATHS) == found


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("", []),
        ("# *\n\n", []),
        ("*.txt", ["a.txt", "b.txt", "a\nb.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "dir/a.txt", "dir/in/a.txt", "a\nb.txt"]),
        ("/dir/", ["dir", "dir/a.txt", "dir/in/a.txt"]),
        ("dir\n!dir/in", ["dir", "dir/a.txt"]),
        ("*\n!*.md", [path for path in PATHS if path != "c.md"]),
        ("!c.md\n*", PATHS),
        ("dir/**", ["dir/a.txt", "dir/in/a.txt"]),
    ],
)
def test_ignored(text: str, left_out: list[str]) -> None:
    ignored = Ignored(text)
    assert [path for path in PATHS if ignored.leaves_out(path)] == left_out


@pytest.mark.parametrize("pattern", ["[a", "[b-a]", "x" * 1001])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(PatternError):
        matching(pattern, PATHS)
    with pytest.raises(PatternError):
        Ignored(pattern)


def test_more_than_is_looked_at() -> None:
    with pytest.raises(PatternError, match="200 lines"):
        Ignored("x\n" * 201)


def test_no_pattern_takes_for_ever() -> None:
    began = time.perf_counter()
    matching("*a" * 400 + "b", ["a" * 4000] * 20)
    Ignored("**/*a/" * 100 + "b").leaves_out("a/" * 2000)
    assert time.perf_counter() - began < 5
