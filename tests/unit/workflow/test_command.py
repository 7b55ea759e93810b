"""Workflow commands: the table, then what depends on the lines before."""

import json
from pathlib import Path

import pytest

from firebrick.workflow import command
from firebrick.workflow.command import CommandReader, Mask, Message, Refused, SetOutput, Text

LANGUAGE = Path(__file__).parents[2] / "scenarios" / "language"
CASES = [json.loads(line) for line in (LANGUAGE / "commands.jsonl").read_text().splitlines()]


def parsed(written):
    ((kind, fields),) = written.items()
    make = getattr(command, kind)
    return make(**fields) if isinstance(fields, dict) else make(*fields)


@pytest.mark.parametrize("case", CASES, ids=[case["line"] for case in CASES])
def test_table(case):
    assert list(CommandReader("/w/").feed(case["line"])) == [parsed(each) for each in case["result"]]


def test_commands_stop_until_the_token():
    reader = CommandReader()
    assert reader.feed("::stop-commands::Pause") == (Text("::stop-commands::Pause"),)
    assert reader.feed("::error::not now") == (Text("::error::not now"),)
    assert reader.feed("::stop-commands::other") == (Text("::stop-commands::other"),)
    assert reader.feed("::PAUSE::") == (Text("::PAUSE::"),)
    assert reader.feed("::error::now") == (Message(level="error", message="now"),)
    assert reader.feed("::pause::") == (Text("::pause::"),)


def test_echo_shows_commands_that_do_not_show_themselves():
    reader = CommandReader()
    assert reader.feed("::set-output name=a::b") == (SetOutput("a", "b"),)
    reader.feed("::echo::ON")
    assert reader.feed("::set-output name=a::b") == (Text("::set-output name=a::b"), SetOutput("a", "b"))
    assert reader.feed("::add-mask::s3cret") == (Mask("s3cret"),)
    assert reader.feed("::error::e") == (Message(level="error", message="e"),)
    reader.feed("::echo::off")
    assert reader.feed("::set-output name=a::b") == (SetOutput("a", "b"),)


def test_ten_annotations_of_each_level_in_a_step():
    reader = CommandReader()
    found = [reader.feed(f"::warning::{number}")[0] for number in range(12)]
    assert [message.annotated for message in found] == [True] * 10 + [False] * 2
    assert reader.feed("::error::first")[0].annotated


def test_old_commands_can_be_allowed():
    reader = CommandReader(allow_unsecure=True)
    assert not isinstance(reader.feed("::set-env name=A::b")[0], Refused)
