"""Workflow commands: `::name key=value::data` in what a step writes, read line by line. File commands are in `command_file`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A line to show as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """What follows belongs under `title`, until the `EndGroup`."""

    title: str


@dataclass(frozen=True, slots=True)
class EndGroup:
    pass


@dataclass(frozen=True, slots=True)
class Debug:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`level` is notice, warning or error. It is shown in the log; beyond ten of a level in a step it is no annotation any more, and
    `annotated` is false."""

    level: str
    message: str
    title: str = ""
    file: str = ""
    line: int | None = None
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None
    annotated: bool = True


@dataclass(frozen=True, slots=True)
class Mask:
    """Mask this value from now on, in everything."""

    value: str


@dataclass(frozen=True, slots=True)
class SetOutput:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SaveState:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that could not be processed: the message is an error, and the step fails."""

    message: str


Parsed = Text | Group | EndGroup | Debug | Message | Mask | SetOutput | SaveState | Refused

ANNOTATIONS_PER_LEVEL = 10
_LEVELS = frozenset({"notice", "warning", "error"})
_NAMES = _LEVELS | {
    "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "group", "remove-matcher", "save-state", "set-env", "set-output",
    "stop-commands",
}  # fmt: skip
_QUIET = _LEVELS | {"group", "endgroup", "debug", "add-mask", "echo"}
_MASKED_TOKEN = 6
_NO_MASK = "Can't add secret mask for empty string in ##[add-mask] command."


@dataclass(frozen=True, slots=True)
class Command:
    """A command as written. `name` is lower-cased, properties too are found without case: their names are lower-cased."""

    name: str
    properties: Mapping[str, str]
    data: str


def parse_command(line: str, names: frozenset[str] | set[str] = _NAMES) -> Command | None:
    """The command in a line, or None: `::name key=value,key=value::data` at its beginning, or the old `##[name key=value;key=value]data`
    anywhere. Only `names` are commands."""
    stripped = line.lstrip()
    if stripped.startswith("::"):
        end = stripped.find("::", 2)
        if end >= 0:
            found = _command(stripped[2:end], ",", names)
            if found is not None:
                name, pairs = found
                properties = {key: _unescape(value, _PROPERTY) for key, value in pairs.items()}
                return Command(name, properties, _unescape(stripped[end + 2 :], _DATA))
    start = line.find("##[")
    end = line.find("]", start)
    if start < 0 or end < 0:
        return None
    found = _command(line[start + 3 : end], ";", names)
    if found is None:
        return None
    name, pairs = found
    return Command(
        name, {key: _unescape(value, _OLD) for key, value in pairs.items()}, _unescape(line[end + 1 :], _OLD)
    )


def _command(head: str, separator: str, names: frozenset[str] | set[str]) -> tuple[str, dict[str, str]] | None:
    name, _, rest = head.partition(" ")
    name = name.lower()
    if name not in names:
        return None
    pairs = (part.split("=", 1) for part in rest.strip().split(separator) if "=" in part)
    return name, {key.strip().lower(): value for key, value in pairs if key.strip()}


_DATA = {"%0D": "\r", "%0A": "\n", "%25": "%"}
_PROPERTY = {**_DATA, "%3A": ":", "%2C": ","}
_OLD = {**_DATA, "%3B": ";", "%5D": "]"}
_ESCAPE = re.compile("%(?:0D|0A|25|3A|2C|3B|5D)")


def _unescape(text: str, meanings: Mapping[str, str]) -> str:
    """One pass gives what replacing `%25` last gives: `%250A` is `%0A`, not a new line."""
    return _ESCAPE.sub(lambda match: meanings.get(match.group(), match.group()), text) if "%" in text else text


class CommandReader:
    """The lines of one step, of both its streams, in order. `workspace` is the guest's: files of annotations are told relative to it."""

    def __init__(self, workspace: str = "", *, allow_unsecure: bool = False) -> None:
        self._workspace = workspace.rstrip("/")
        self._allow_unsecure = allow_unsecure
        self._stopped_by = ""
        self._echo = False
        self._annotations: Counter[str] = Counter()

    def feed(self, line: str) -> tuple[Parsed, ...]:
        """What a line, without its newline, means; mostly one `Text`."""
        if "::" not in line and "##[" not in line:
            return (Text(line),)
        if self._stopped_by:
            command = parse_command(line, {self._stopped_by})
            if command is not None:
                self._stopped_by = ""
            return (Text(line),)
        command = parse_command(line)
        if command is None:
            return (Text(line),)
        result = self._run(command, line)
        shown = self._echo and command.name not in _QUIET and command.name != "stop-commands"
        return (Text(line), *result) if shown else result

    def _run(self, command: Command, line: str) -> tuple[Parsed, ...]:
        match command.name:
            case "group":
                return (Group(command.data),)
            case "endgroup":
                return (EndGroup(),)
            case "debug":
                return (Debug(command.data),)
            case "notice" | "warning" | "error":
                return (self._message(command),)
            case _:
                return self._effect(command, line)

    def _effect(self, command: Command, line: str) -> tuple[Parsed, ...]:
        match command.name:
            case "add-mask":
                return (Mask(command.data),) if command.data.strip() else (self._annotation("warning", _NO_MASK),)
            case "stop-commands":
                return self._stop(command.data, line)
            case "echo":
                return self._set_echo(command.data)
            case "set-output" | "save-state":
                return _named(command)
            case _:
                return self._old(command)

    def _stop(self, token: str, line: str) -> tuple[Parsed, ...]:
        """Nothing is a command any more until `::token::`; a long token is a secret of the step."""
        name = token.lower()
        if not token.strip() or name in _NAMES or name == "pause-logging":
            return (
                Refused(
                    f"Invalid stop-commands token '{token}'. It must not be empty, the name of a command or 'pause-logging'."
                ),
            )
        self._stopped_by = name
        return (Text(line), Mask(token)) if len(token) > _MASKED_TOKEN else (Text(line),)

    def _set_echo(self, data: str) -> tuple[Parsed, ...]:
        wanted = data.strip().lower()
        if wanted not in {"on", "off"}:
            return (
                Refused(
                    f"Invalid echo command value. Possible values can be: 'on', 'off'. Current value is: '{data}'."
                ),
            )
        self._echo = wanted == "on"
        return ()

    def _old(self, command: Command) -> tuple[Parsed, ...]:
        if command.name in {"set-env", "add-path"} and not self._allow_unsecure:
            return (
                Refused(
                    f"The `{command.name}` command is disabled. Please upgrade to using Environment Files or opt into unsecure command "
                    "execution by setting the `ACTIONS_ALLOW_UNSECURE_COMMANDS` environment variable to `true`."
                ),
            )
        return (self._annotation("warning", f"The `{command.name}` command is not supported yet and has no effect."),)

    def _annotation(self, level: str, message: str, place: _Place | None = None) -> Message:
        self._annotations[level] += 1
        place = place or _Place()
        return Message(
            level=level,
            message=message,
            title=place.title,
            file=place.file,
            line=place.line,
            end_line=place.end_line,
            column=place.column,
            end_column=place.end_column,
            annotated=self._annotations[level] <= ANNOTATIONS_PER_LEVEL,
        )

    def _message(self, command: Command) -> Message:
        return self._annotation(command.name, command.data, _place(command.properties, self._workspace))


@dataclass(frozen=True, slots=True)
class _Place:
    title: str = ""
    file: str = ""
    line: int | None = None
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None


def _place(properties: Mapping[str, str], workspace: str) -> _Place:
    """Where an annotation points: an end without a beginning is the beginning, columns need one line, reversed ranges are none."""
    line, end_line = _number(properties.get("line")), _number(properties.get("endline"))
    column, end_column = _number(properties.get("col")), _number(properties.get("endcolumn"))
    line = end_line if line is None else line
    column = end_column if column is None else column
    if line is None or (end_line is not None and line != end_line):
        column = end_column = None
    if line is not None and end_line is not None and end_line < line:
        line = end_line = None
    if column is not None and end_column is not None and end_column < column:
        column = end_column = None
    file = properties.get("file", "")
    if workspace and file.startswith(workspace + "/"):
        file = file[len(workspace) + 1 :]
    return _Place(properties.get("title", ""), file, line, end_line, column, end_column)


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _named(command: Command) -> tuple[Parsed, ...]:
    name = command.properties.get("name", "")
    if not name:
        return (Refused(f"Required field 'name' is missing in ##[{command.name}] command."),)
    return (SetOutput(name, command.data) if command.name == "set-output" else SaveState(name, command.data),)
