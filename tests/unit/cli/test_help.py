"""What `--help` shows of every command is what the program says of it."""

import pytest
from rich.text import Text
from typer.testing import CliRunner

from firebrick.cli.main import VERBS, app


def commands():
    for name, verb in VERBS.items():
        command = verb.load(name)
        yield (name,), command
        for inner, of_it in getattr(command, "commands", {}).items():
            yield (name, inner), of_it


COMMANDS = [pytest.param(words, command, id=" ".join(words)) for words, command in commands()]


@pytest.mark.parametrize(("words", "command"), COMMANDS)
def test_no_description_is_taken_for_markup(words, command):
    said = [command.help, *(parameter.help for parameter in command.params if getattr(parameter, "help", None))]
    assert all(said), f"{words} has no description"
    assert [Text.from_markup(text).plain for text in said] == said


@pytest.mark.parametrize(("words", "command"), COMMANDS)
def test_a_list_of_commands_shows_a_sentence_of_each(words, command):
    assert command.short_help.endswith(".") and "\n" not in command.short_help
    assert command.help.startswith(command.short_help)


@pytest.mark.parametrize("words", [(name,) for name in VERBS], ids=lambda words: words[0])
def test_help_is_about_the_command_alone(words):
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "--install-completion" not in result.output
