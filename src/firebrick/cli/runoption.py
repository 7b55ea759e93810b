"""The options that verbs share which carry a run out: what it is given, how it is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firebrick.cli.errors import UsageError

if TYPE_CHECKING:
    from firebrick.node.order import EnvironmentOrder

SecretOption = Annotated[
    list[str] | None,
    typer.Option("--secret", "-s", metavar="NAME[=VALUE]", help="A secret; without value, the variable NAME."),
]
EnvironmentSecretOption = Annotated[
    list[str] | None,
    typer.Option(
        "--environment-secret",
        metavar="ENVIRONMENT:NAME[=VALUE]",
        help="A secret of the jobs in an environment; without value, the variable NAME.",
    ),
]
EnvironmentVarOption = Annotated[
    list[str] | None,
    typer.Option(
        "--environment-var",
        metavar="ENVIRONMENT:NAME=VALUE",
        help="A value of the context `vars` of the jobs in an environment.",
    ),
]
ArtifactsOption = Annotated[
    Path | None,
    typer.Option("--artifacts", metavar="DIR", help="Where artifacts go. Default: the directory of the run."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One event a line, as JSON.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Plain lines, all of them, on a terminal too.")]


def read_secrets(words: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for the variable of that name. Raises UsageError where there is no name, or no variable."""
    return dict(_read_secret(word, "--secret") for word in words)


def _read_secret(word: str, option: str, before: str = "") -> tuple[str, str]:
    name, given, value = word.partition("=")
    if not name:
        raise UsageError(
            f"{option} {before}{word} names no secret",
            hint=f"Say {option} {before}NAME, or {option} {before}NAME=VALUE.",
        )
    if given:
        return name, value
    if name not in os.environ:
        raise UsageError(
            f"there is no variable {name} to take the secret from",
            hint=f"Set it, or say {option} {before}{name}=VALUE.",
        )
    return name, os.environ[name]


def read_environments(secrets: list[str], variables: list[str]) -> dict[str, EnvironmentOrder]:
    """`ENVIRONMENT:NAME=VALUE` each, a secret also without value. Raises UsageError."""
    from firebrick.node.order import EnvironmentOrder  # a verb that runs nothing does not wait for it

    found: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for word in secrets:
        environment, rest = _split(word, "--environment-secret")
        name, value = _read_secret(rest, "--environment-secret", f"{environment}:")
        found.setdefault(environment, ({}, {}))[0][name] = value
    for word in variables:
        environment, rest = _split(word, "--environment-var")
        name, given, value = rest.partition("=")
        if not name or not given:
            raise UsageError(f"--environment-var {word} is no ENVIRONMENT:NAME=VALUE")
        found.setdefault(environment, ({}, {}))[1][name] = value
    return {name: EnvironmentOrder(secrets=each[0], variables=each[1]) for name, each in found.items()}


def _split(word: str, option: str) -> tuple[str, str]:
    environment, colon, rest = word.partition(":")
    if not environment or not colon:
        raise UsageError(
            f"{option} {word.partition('=')[0]} names no environment", hint=f"Say {option} ENVIRONMENT:NAME=VALUE."
        )
    return environment, rest
