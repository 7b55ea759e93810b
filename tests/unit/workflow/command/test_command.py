"""Workflow commands: the table, then what depends on the lines before."""

import json
from pathlib import Path

import pytest

from firebrick.workflow.command import command
from firebrick.workflow.command.command import (
    AddPath,
    CommandReader,
    Mask,
    Message,
    Refused,
    SaveState,
    SetEnv,
    SetOutput,
    Text,
)

LANGUAGE = Path(__file__).parents[3] / "scenarios" / "language"
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
    assert reader.feed("::add-mask::s3cret") == (Text("::add-mask::***"), Mask("s3cret"))
    assert reader.feed("::error::e") == (Message(level="error", message="e"),)
    reader.feed("::echo::off")
    assert reader.feed("::set-output name=a::b") == (SetOutput("a", "b"),)


def test_old_commands_can_be_allowed():
    reader = CommandReader(allow_unsecure=True)
    assert reader.feed("::set-env name=A::b") == (SetEnv("A", "b"),)
    assert reader.feed("::add-path::/opt/bin") == (AddPath("/opt/bin"),)
    refused = "Can't update node_options environment variable using ::set-env:: command."
    assert reader.feed("::set-env name=node_options::b") == (Message(level="error", message=refused),)
    for line in ("::set-env::b", "::add-path::"):
        assert isinstance(reader.feed(line)[0], Refused)


def test_a_token_is_masked_before_it_is_shown():
    assert CommandReader().feed("::stop-commands::longtoken") == (
        Mask("longtoken"),
        Text("::stop-commands::longtoken"),
    )


def test_any_token_can_be_allowed():
    reader = CommandReader(allow_tokens=True)
    assert reader.feed("::stop-commands::pause-logging") == (
        Mask("pause-logging"),
        Text("::stop-commands::pause-logging"),
    )
    assert reader.feed("::error::not now") == (Text("::error::not now"),)


def test_commands_are_shown_from_the_start_where_that_is_asked_for():
    assert CommandReader(echo=True).feed("::save-state name=a::b") == (
        Text("::save-state name=a::b"),
        SaveState("a", "b"),
    )
