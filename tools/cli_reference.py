"""Write docs/reference/cli.md from the command line itself. A test compares the page with what this would write.

python tools/cli_reference.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

from firebrick.cli.main import VERBS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"

_KINDS = {int: "N", float: "N", Path: "PATH"}

HEAD = """\
# Command line

Written by `tools/cli_reference.py` from the program's own descriptions. `firebrick VERB --help` shows the same.

Exit status: 0 success; 1 failure; 2 wrong usage, or settings of a node or a server with mistakes, or a workflow with mistakes, a matrix that cannot be expanded before anything runs among them; 130 interrupted. Messages go to stderr, `--json` to stdout. `NO_COLOR` turns colours off,
`FIREBRICK_DEBUG=1` adds a traceback to an error. Settings and the home are on [their own page](settings.md).
"""


def page() -> str:
    """The text of the page."""
    sections = [HEAD]
    for name, verb in VERBS.items():
        sections += _sections(verb.load(name), f"firebrick {name}")
    return "\n".join(sections)


def _sections(command: Any, path: str) -> Iterator[str]:
    """One section for a command; for a group, one for each of its commands."""
    if commands := getattr(command, "commands", None):
        for name, inner in commands.items():
            yield from _sections(inner, f"{path} {name}")
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter for parameter in command.params if parameter.param_type_name == "option" and parameter.name != "help"
    ]
    usage = " ".join([path, *("[OPTIONS]" for _ in options[:1]), *(_usage(argument) for argument in arguments)])
    lines = [f"## {path}", "", _text(command.help), "", f"    {usage}", ""]
    rows = [(f"`{_usage(argument)}`", _text(getattr(argument, "help", ""))) for argument in arguments]
    rows += [
        (
            ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts)) + _metavar(option),
            _described(option),
        )
        for option in options
    ]
    if rows:
        lines += ["| | |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows), ""]
    yield "\n".join(lines)


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    name += "..." if argument.nargs == -1 and not name.endswith("...") else ""
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _metavar(option: Any) -> str:
    if option.is_flag:
        return ""
    kind = _kind(option)
    choices = "|".join(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else ""
    return f" {_text(option.metavar or choices or _KINDS.get(kind, 'TEXT'))}"


def _kind(option: Any) -> Any:
    """What the option's function is given: the annotation without `| None` and lists."""
    kind = option.type_descriptor.annotation
    while arguments := [argument for argument in get_args(kind) if argument is not type(None)]:
        kind = arguments[0]
    return kind


def _described(option: Any) -> str:
    text = _text(option.help)
    if option.is_flag or option.default in (None, (), [], "") or callable(option.default):
        return text
    return f"{text} Default: `{option.default}`."


def _text(text: str | None) -> str:
    return re.sub(r"\s+", " ", (text or "").replace("|", "\\|")).strip()


if __name__ == "__main__":
    TARGET.write_text(page())
