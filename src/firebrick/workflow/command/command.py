"""Workflow commands: `::name key=value::data` in what a step writes, read line by line. File commands are in `command_file`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from firebrick.workflow.command.file import REFUSED_VARIABLES


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
    """`level` is notice, warning or error. The log shows `shown`, where there is one, instead of the message."""

    level: str
    message: str
    title: str = ""
    file: str = ""
    line: int | None = None
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None
    shown: str = ""


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
class SetEnv:
    """As if GITHUB_ENV had it, and from the next step on."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class AddPath:
    path: str


@dataclass(frozen=True, slots=True)
class AddMatcher:
    """Look for the problems the file at `path` describes; it is relative to the workspace."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveMatcher:
    """Either the `owner` is named, or the file at `path` names several."""

    owner: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that could not be processed. That and the message are errors, and the step fails."""

    command: str
    message: str


Parsed = (
    Text
    | Group
    | EndGroup
    | Debug
    | Message
    | Mask
    | SetOutput
    | SaveState
    | SetEnv
    | AddPath
    | AddMatcher
    | RemoveMatcher
    | Refused
)

_LEVELS = frozenset({"notice", "warning", "error"})
_NAMES = _LEVELS | {
    "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "group", "remove-matcher", "save-state", "set-env", "set-output",
    "stop-commands",
}  # fmt: skip
_QUIET = _LEVELS | {"group", "endgroup", "debug", "add-mask", "echo"}
_MASKED_TOKEN = 6
_DISABLED = (
    "The `{}` command is disabled. Please upgrade to using Environment Files or opt into unsecure command execution by setting the "
    "`ACTIONS_ALLOW_UNSECURE_COMMANDS` environment variable to `true`."
)
_NO_STOP = (
    "You cannot use a endToken that is an empty string, the string 'pause-logging', or another workflow command. Opt into insecure "
    "command execution by setting the `ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS` environment variable to `true`."
)
_NO_PATH = "File path must be specified."
_TWO_MATCHERS = "Either specify an owner name or a file path in 'remove-matcher' command. Both values cannot be set."
_NO_MATCHER = "Either an owner name or a file path must be specified in 'remove-matcher' command."
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


def refusal(command: str) -> str:
    """The error before the one that says why."""
    return f"Unable to process command '{command}' successfully."


class CommandReader:
    """The lines of one step, of both its streams, in order. `workspace` is the guest's: files of annotations are told relative to it.

    `allow_unsecure`: the commands `set-env` and `add-path` work. `allow_tokens`: any text may stop commands. `echo`: commands are
    shown from the start."""

    def __init__(
        self, workspace: str = "", *, allow_unsecure: bool = False, allow_tokens: bool = False, echo: bool = False
    ) -> None:
        self._workspace = workspace.rstrip("/")
        self._allow_unsecure = allow_unsecure
        self._allow_tokens = allow_tokens
        self._stopped_by = ""
        self._echo = echo

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
            case "add-mask":
                return self._mask(command.data)
            case "stop-commands":
                return self._stop(command.data, line)
            case "echo":
                return self._set_echo(command.data)
            case "set-env" | "add-path" if not self._allow_unsecure:
                return (Refused(line, _DISABLED.format(command.name)),)
        return (_EFFECTS[command.name](command, line, self._workspace),)

    def _mask(self, value: str) -> tuple[Parsed, ...]:
        if not value.strip():
            return (Message(level="warning", message=_NO_MASK),)
        return (Text("::add-mask::***"), Mask(value)) if self._echo else (Mask(value),)

    def _stop(self, token: str, line: str) -> tuple[Parsed, ...]:
        """Nothing is a command any more until `::token::`; a long token is a secret of the step."""
        name = token.lower()
        if not self._allow_tokens and (not token or name in _NAMES or name == "pause-logging"):
            return (Refused(line, _NO_STOP),)
        self._stopped_by = name
        return (Mask(token), Text(line)) if len(token) > _MASKED_TOKEN else (Text(line),)

    def _set_echo(self, data: str) -> tuple[Parsed, ...]:
        wanted = data.strip().lower()
        if wanted not in {"on", "off"}:
            values = "Possible values can be: 'on', 'off'."
            return (Refused("echo", f"Invalid echo command value. {values} Current value is: '{data}'."),)
        self._echo = wanted == "on"
        return ()


def _message(command: Command, _: str, workspace: str) -> Message:
    place = _place(command.properties, workspace)
    return Message(
        level=command.name,
        message=command.data,
        title=place.title,
        file=place.file,
        line=place.line,
        end_line=place.end_line,
        column=place.column,
        end_column=place.end_column,
    )


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


def _named(command: Command, line: str, _: str) -> SetOutput | SaveState | Refused:
    name = command.properties.get("name", "")
    if not name:
        return Refused(line, f"Required field 'name' is missing in ##[{command.name}] command.")
    return SetOutput(name, command.data) if command.name == "set-output" else SaveState(name, command.data)


def _set_env(command: Command, line: str, _: str) -> SetEnv | Message | Refused:
    name = command.properties.get("name", "")
    if not name:
        return Refused(line, "Required field 'name' is missing in ##[set-env] command.")
    if name.upper() in REFUSED_VARIABLES:
        return Message(level="error", message=f"Can't update {name} environment variable using ::set-env:: command.")
    return SetEnv(name, command.data)


def _add_path(command: Command, line: str, _: str) -> AddPath | Refused:
    return AddPath(command.data) if command.data else Refused(line, "##[add-path] needs a directory.")


def _add_matcher(command: Command, _line: str, _: str) -> AddMatcher | Message:
    return AddMatcher(command.data) if command.data else Message(level="warning", message=_NO_PATH)


def _remove_matcher(command: Command, _line: str, _: str) -> RemoveMatcher | Message:
    owner, path = command.properties.get("owner", ""), command.data
    if bool(owner) == bool(path):
        return Message(level="warning", message=_TWO_MATCHERS if owner else _NO_MATCHER)
    return RemoveMatcher(owner, path)


# Of the command, its line and the workspace.
_EFFECTS: Mapping[str, Callable[[Command, str, str], Parsed]] = {
    "group": lambda command, *_: Group(command.data),
    "endgroup": lambda *_: EndGroup(),
    "debug": lambda command, *_: Debug(command.data),
    "notice": _message,
    "warning": _message,
    "error": _message,
    "set-output": _named,
    "save-state": _named,
    "set-env": _set_env,
    "add-path": _add_path,
    "add-matcher": _add_matcher,
    "remove-matcher": _remove_matcher,
}
