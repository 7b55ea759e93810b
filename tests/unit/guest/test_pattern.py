"""What an exclude pattern matches."""

from __future__ import annotations

import time

import pytest

from firebrick.guest.pattern import matcher

YES = [
    (".git", ".git"),
    (".git", "a/.git"),
    ("*.o", "a/b/x.o"),
    ("a/*.o", "a/x.o"),
    ("/x", "x"),
    ("a/**/z", "a/b/c/z"),
    ("a/**/z", "a/z"),
    ("a/**", "a/b/c"),
    ("**/x", "x"),
    ("**/x", "a/b/x"),
    ("**/a/**/b", "a/c/a/b"),
    ("[a-c]?", "b1"),
    ("[!a-c]", "d"),
    ("[^a-c]", "d"),
    ("[]]", "]"),
    ("\\*", "*"),
    ("\\a", "a"),
    ("*a*b*c*", "xxaxxbxxc"),
    ("build/", "src/build"),
    ("b\xe9", "b\xe9"),
]
NO = [
    (".git", "a.git"),
    ("a/*.o", "a/b/x.o"),
    ("/x", "a/x"),
    ("?", "ab"),
    ("[!a-c]", "b"),
    ("a/*", "a"),
    ("a/**", "a"),
    ("a/**/z", "a/b"),
    ("\\*", "x"),
    ("a", "A"),
    ("", "a"),
    ("[z-a]", "m"),
]


@pytest.mark.parametrize(("pattern", "path"), YES)
def test_matches(pattern: str, path: str) -> None:
    assert matcher([b"no such thing", pattern.encode()])(path.encode())


@pytest.mark.parametrize(("pattern", "path"), NO)
def test_does_not_match(pattern: str, path: str) -> None:
    assert not matcher([pattern.encode()])(path.encode())


def test_no_pattern_takes_for_ever() -> None:
    began = time.monotonic()
    assert not matcher([b"*a" * 200 + b"b"])(b"a" * 4000)
    assert not matcher([b"**/a/" * 100 + b"b"])(b"a/" * 2000 + b"a")
    assert time.monotonic() - began < 2
