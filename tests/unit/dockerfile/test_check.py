"""Mistakes of a Dockerfile, all at once, and none that is only one for want of an image nobody has looked at."""

import pytest

from firebrick.dockerfile.check import check_dockerfile


def lines(text: str) -> list[int]:
    return [error.line for error in check_dockerfile(text.encode(), platform="linux/amd64")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM scratch\nCOPY a b\n", []),
        ("FROM scratch\nCOPY a\nRNU x\nADD https://x/y z\n", [2, 3, 4]),
        ("FROM scratch\nCOPY a $NONE\n", [2]),
        ("FROM debian\nCOPY a $NONE\n", []),
        ("FROM debian\nCOPY --chmod=$NONE a b\n", []),
        ("FROM scratch\nENV =x\nCOPY a $NONE\n", [2]),
        ("FROM scratch AS one\nENV A=x\nFROM one\nCOPY a $A\nCOPY a $B\n", [5]),
        ("FROM debian AS one\nFROM one\nCOPY a $B\n", []),
        ("FROM scratch AS one\nRNU\nFROM scratch\nCOPY --from=one a b\n", [2]),
        ("FROM scratch AS one\nRNU\nFROM scratch\nCOPY a b\n", []),
        ("FROM --platform=linux/s390x a\nRNU\n", [1]),
        ("", [0]),
        ("\0", [0]),
    ],
)
def test_where_the_mistakes_are(text: str, expected: list[int]) -> None:
    assert lines(text) == expected


def test_many_mistakes_take_no_longer_than_the_text() -> None:
    text = "FROM scratch\n" + "ENV A=${A}${A}x\nCOPY a $A\n" * 499
    assert lines(text)[0] > 1
