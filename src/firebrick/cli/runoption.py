"""The options that verbs share which carry a run out: what it is given, how it is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from firebrick.cli.errors import UsageError

SecretOption = Annotated[
    list[str] | None,
    typer.Option("--secret", "-s", metavar="NAME[=VALUE]", help="A secret; without value, the variable NAME."),
]
ArtifactsOption = Annotated[
    Path | None,
    typer.Option("--artifacts", metavar="DIR", help="Where artifacts go. Default: the directory of the run."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One event a line, as JSON.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Plain lines, all of them, on a terminal too.")]


def read_secrets(words: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for the variable of that name. Raises UsageError where there is no name, or no variable."""
    found: dict[str, str] = {}
    for word in words:
        name, given, value = word.partition("=")
        if not name:
            raise UsageError(f"--secret {word} names no secret", hint="Say --secret NAME, or --secret NAME=VALUE.")
        if not given:
            if name not in os.environ:
                raise UsageError(
                    f"there is no variable {name} to take the secret from",
                    hint=f"Set it, or say --secret {name}=VALUE.",
                )
            value = os.environ[name]
        found[name] = value
    return found
