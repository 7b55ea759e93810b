"""`firebrick`: the verbs. Each is imported when it is called, so that none waits for what only another needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from firebrick.cli.errors import report


@dataclass(frozen=True, slots=True)
class Verb:
    """`attribute` of `module` is a function, or a typer application where the verb has verbs of its own."""

    module: str
    attribute: str
    help: str

    def load(self, name: str) -> TyperCommand | TyperGroup:
        target = getattr(import_module(f"firebrick.cli.{self.module}"), self.attribute)
        command = get_command(target if isinstance(target, typer.Typer) else _application(target))
        command.name = name
        _flow(command)
        return command  # type: ignore[return-value]  # typer says BaseCommand in some releases, Command in others


VERBS: Final[dict[str, Verb]] = {
    "run": Verb("run", "run", "Run a workflow of a repository, each job in a machine of its own."),
    "rerun": Verb("rerun", "rerun", "Go on with a job of an earlier run, or run a build of a server again."),
    "approve": Verb("approve", "approve", "Let a build of a server go on in an environment."),
    "debug": Verb("debug", "app", "Open a shell in a copy of the machine of a step that failed."),
    "kept": Verb("kept", "app", "List and remove the machines that are kept of runs."),
    "tools": Verb("tools", "app", "Add, list and remove what jobs find in their tool cache."),
    "vm": Verb("vm", "app", "Look into the machines of running nodes: list, exec, shell, copy, fork."),
    "workflow": Verb("workflow", "app", "Check and explain workflow files."),
    "image": Verb("image", "app", "Build, list and remove root images."),
    "kernel": Verb("image", "kernel_app", "Build and list kernels."),
    "serve": Verb("serve", "serve", "Serve the build API over HTTP."),
    "doctor": Verb("doctor", "doctor", "Say what this host has, what it lacks, and what to do about it."),
    "paths": Verb("paths", "paths", "Show where Firebrick keeps its things."),
}


class LazyGroup(TyperGroup):
    """A group that knows its verbs by name and imports one when it is called; a list of them needs no import."""

    _listing = False

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ARG002
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        return TyperCommand(cmd_name, help=verb.help) if self._listing else verb.load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_help(ctx, formatter)


def _flow(command: Any) -> None:
    """Descriptions as paragraphs without the line breaks of the source, and in lists their first sentence alone."""
    paragraphs = [" ".join(each.split()) for each in (command.help or "").split("\n\n")]
    command.help = "\n\n".join(paragraphs)
    command.short_help = re.split(r"(?<=\.) (?=[A-Z])", paragraphs[0], maxsplit=1)[0]
    for inner in getattr(command, "commands", {}).values():
        _flow(inner)


def _application(function: Callable[..., object]) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return app


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run untrusted work, each in a microVM of its own, on machines you own.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"firebrick {metadata.version('firebrick')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run untrusted work, each in a microVM of its own, on machines you own."""


def main() -> None:
    """The program. Ends with 0 success, 1 failure, 2 wrong usage, or settings or a workflow with mistakes, 130 interrupted."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output went away; nothing is wrong. Python must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the last door: everything becomes a sentence and an exit status here
        sys.exit(report(error))


if __name__ == "__main__":
    main()
