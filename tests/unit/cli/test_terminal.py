"""Guest output cannot do anything to a terminal but be read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.cli.terminal import duration, size, tame, tame_block, tame_json


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
    assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in tame(text, colour=False))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.314, "0.31 s"), (12.34, "12.3 s"), (125, "2 min 05 s"), (3725, "1 h 02 min"), (59.99, "60.0 s")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (4300, "4.2 KiB"), (5 << 30, "5.0 GiB")])
def test_size(count, text):
    assert size(count) == text


def test_a_newline_is_a_mark_and_no_new_line():
    assert tame("a\n[x] == job x ok", colour=False) == "a␤[x] == job x ok"
    assert tame("a\u2028b\ud800", colour=True) == "ab\ufffd"


def test_lines_that_go_on_are_seen_to():
    assert tame_block("one\n\x1b[2Jtwo\rthree", indent="  ") == "one\n  three"


def test_json_says_what_a_terminal_obeys_as_escapes():
    text = json.dumps("\x9b2Jé\u202e\x7f", ensure_ascii=False)
    assert tame_json(text) == '"\\u009b2Jé\\u202e\\u007f"'
    assert json.loads(tame_json(text)) == json.loads(text)
