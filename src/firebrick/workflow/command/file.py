"""File commands: what a step left in the files GITHUB_ENV, GITHUB_OUTPUT, GITHUB_STATE, GITHUB_PATH and GITHUB_STEP_SUMMARY name.

The files are read after the step, also after one that failed. An error fails the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_SUMMARY = 1 << 20
REFUSED_VARIABLES = frozenset({"NODE_OPTIONS"})
"""What no step may set for the ones after it, in whatever case."""
_QUOTED = 1000


class FileCommandError(Exception):
    """What a step left in one of its files does not follow the grammar."""


def file_command_failed(name: str) -> str:
    """The message before the cause; `name` is env, output, state, path or step_summary."""
    return f"Unable to process file command '{name}' successfully."


def parse_pairs(text: str) -> list[tuple[str, str]]:
    r"""The pairs of an env, output or state file, in order: lines `NAME=VALUE`, or `NAME<<DELIMITER`, lines of the value, and a line that is
    the delimiter alone. Only `\n` ends a line. Raises FileCommandError."""
    lines = _lines(text.removeprefix("\ufeff"))
    return [_pair(line, lines) for line, _ in lines if line]


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether a newline ended it. Nothing comes after the last newline."""
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        if end < 0:
            yield text[at:], False
            return
        yield text[at:end], True
        at = end + 1


def _pair(line: str, lines: Iterator[tuple[str, bool]]) -> tuple[str, str]:
    """Whichever of `=` and `<<` comes first decides."""
    equals, heredoc = line.find("="), line.find("<<")
    if equals >= 0 and (heredoc < 0 or equals < heredoc):
        name, _, value = line.partition("=")
        if not name:
            raise FileCommandError(f"Invalid format '{_cut(line)}'. Name must not be empty")
        return name, value
    if heredoc < 0:
        raise FileCommandError(f"Invalid format '{_cut(line)}'")
    name, _, delimiter = line.partition("<<")
    if not name or not delimiter:
        raise FileCommandError(f"Invalid format '{_cut(line)}'. Name must not be empty and delimiter must not be empty")
    return name, _heredoc(delimiter, lines)


def _cut(line: str) -> str:
    """As much of a line as a message needs."""
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"


def _heredoc(delimiter: str, lines: Iterator[tuple[str, bool]]) -> str:
    value: list[str] = []
    for line, ended in lines:
        if line == delimiter:
            return "\n".join(value)
        if not ended:
            raise FileCommandError("Invalid value. EOF marker missing new line.")
        value.append(line)
    raise FileCommandError(f"Invalid value. Matching delimiter not found '{_cut(delimiter)}'")


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """What GITHUB_ENV adds for the steps that follow. `errors` are to be shown, each once; they do not fail the step."""

    variables: dict[str, str]
    errors: tuple[str, ...]


def parse_environment(text: str) -> EnvironmentFile:
    """The file GITHUB_ENV names; the last of several of one name counts. Raises FileCommandError."""
    variables: dict[str, str] = {}
    errors: list[str] = []
    for name, value in parse_pairs(text):
        if name.upper() in REFUSED_VARIABLES:
            errors.append(f"Can't store {name.upper()} output parameter using '$GITHUB_ENV' command.")
        else:
            variables[name] = value
    return EnvironmentFile(variables, tuple(dict.fromkeys(errors)))


def parse_path(text: str) -> tuple[str, ...]:
    """The directories of a GITHUB_PATH file, one a line, in order."""
    return tuple(line for line, _ in _lines(text.removeprefix("\ufeff")) if line)


def extend_path(added: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """The directories added so far and some more; one that is added again moves to the end, which wins."""
    directories = dict.fromkeys(added)
    for directory in more:
        directories.pop(directory, None)
        directories[directory] = None
    return tuple(directories)


def path_value(added: Iterable[str], path: str) -> str:
    """PATH with what was added before it, the latest first."""
    return ":".join([*reversed(list(added)), *([path] if path else [])])


def summary_too_large(size: int) -> str:
    """The error for a GITHUB_STEP_SUMMARY file of `size` bytes, more than 1 MiB. The summary is dropped; the step does not fail."""
    return f"$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of {MAX_SUMMARY >> 10}k, got {size >> 10}k."
