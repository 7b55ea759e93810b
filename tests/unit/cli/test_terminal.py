"""Guest output cannot do anything to a terminal but be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.cli.terminal import duration, size, tame


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[2J\x1b[1;1Hwiped", "wiped"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;aGk=\x1b\\after", "after"),
        ("\x1bP$q\x1b\\x", "x"),
        ("\x9b31mred", "red"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("10%\r50%\r100%", "100%"),
        ("100%\r", "100%"),
        ("a\tb", "a       b"),
        ("bell\x07 back\x08", "bell back"),
        ("\x1b]0;never ends", ""),
        ("rtl\u202eevil", "rtlevil"),
    ],
)
def test_sequences_go(text, shown):
    assert tame(text, colour=False) == shown


def test_colours_stay_where_wanted_and_are_reset():
    assert tame("\x1b[1;31mred\x1b[2J", colour=True) == "\x1b[1;31mred\x1b[0m"


@given(st.text())
def test_no_control_character_survives(text):
    assert all(c == "\n" or (ord(c) >= 32 and not 127 <= ord(c) < 160) for c in tame(text, colour=False))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.314, "0.31 s"), (12.34, "12.3 s"), (125, "2 min 05 s"), (3725, "1 h 02 min"), (59.99, "60.0 s")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (4300, "4.2 KiB"), (5 << 30, "5.0 GiB")])
def test_size(count, text):
    assert size(count) == text
