"""`firebrick debug`: a shell where a step failed."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from firebrick.cli.errors import UsageError
from firebrick.cli.kept import open_shelf
from firebrick.cli.node import JailOption, told_settings, warn
from firebrick.cli.terminal import tame
from firebrick.home import Home

if TYPE_CHECKING:
    from firebrick.node.kept.shelf import Entry
    from firebrick.node.settings import DriverName, NodeSettings

# No login shell: that would set PATH anew.
_SHELL: Final = ("sh", "-c", "if command -v bash >/dev/null; then exec bash; else exec sh; fi")


_COMMAND: Final = "firebrick.debug.command"


class _WithCommand(TyperCommand):
    """A verb that takes what stands behind `--` as a command, apart from its own words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = args[: args.index("--")] if "--" in args else args
        ctx.meta[_COMMAND] = tuple(args[len(own) + 1 :])
        return super().parse_args(ctx, own)


app = typer.Typer(add_completion=False)


@app.command(cls=_WithCommand)
def debug(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(help="A run, the beginning of its name, or `last`: the last one of which a machine is kept."),
    ],
    job: Annotated[
        str | None, typer.Argument(help="One of its jobs, where machines of several are kept; also `caller / job`.")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", "-n", metavar="N", help="A step that failed, as `firebrick kept ls` names it. Default: the first."
        ),
    ] = None,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Give the command a terminal.")] = False,
    jail: JailOption = None,
) -> None:
    """Open a shell in a copy of the machine of a step that failed, with the step's environment, where it ran; or run the command that stands
    behind `--` there: `firebrick debug last -- make -n`.

    `$FIREBRICK_STEP` runs the step again. The copy ends with the shell; what is kept does not change, so this can be done any number of times, by
    several people at once. Ends with the exit status of the shell or command.
    """
    command: tuple[str, ...] = context.meta[_COMMAND]
    if not command and not sys.stdin.isatty():
        raise UsageError("a shell needs a terminal", hint="Say a command behind `--`: it runs without one.")
    home = Home.find()
    entry = open_shelf(home).find(run, job, step)
    settings = told_settings(home, _driver(entry), jail)
    status = asyncio.run(_look(home, entry, settings, command or _SHELL, terminal=terminal or not command))
    raise typer.Exit(status)


def _driver(entry: Entry) -> DriverName:
    """The one the machine had."""
    from firebrick.node.errors import NodeError
    from firebrick.node.settings import DriverName

    name = entry.snapshot.driver
    if name not in set(DriverName):
        raise NodeError(f"cannot open {entry.path}: it is of a driver {name!r} that this release has not")
    return DriverName(name)


async def _look(home: Home, entry: Entry, settings: NodeSettings, argv: tuple[str, ...], *, terminal: bool) -> int:
    from firebrick.cli.pty import converse, raw_terminal, terminal_size
    from firebrick.node.kept.reopened import reopened
    from firebrick.node.node import Node
    from firebrick.node.socket import wire
    from firebrick.node.socket.caller import call

    async with Node.open(home, settings=settings, warn=warn) as node, reopened(node, entry) as copy:
        if terminal:
            _introduce(entry, copy.milliseconds)
        request = wire.Execute(
            machine=copy.machine,
            argv=argv,
            env={**copy.environment, **({"TERM": os.environ.get("TERM", "xterm")} if terminal else {})},
            cwd=copy.directory,
            size=terminal_size() if terminal else None,
        )
        async with call(node.socket) as connection:
            with raw_terminal(terminal and sys.stdin.isatty()):
                return await converse(connection, request)


def _introduce(entry: Entry, milliseconds: float) -> None:
    """What happened here, and how to let it happen again."""
    record = entry.record
    when = time.strftime("%H:%M", time.localtime(record.at))
    what = {
        "failed": f"step {record.step + 1} failed"
        + (f" with exit code {record.exit_code}" if record.exit_code else ""),
        "before": f"before step {record.step + 1}",
        "end": "after the last step",
    }[record.kind.value]
    lines = [
        f"{record.job} of run {record.run}, {what}, at {when}: {record.name}",
        f"A copy of its machine, made in {milliseconds:.0f} ms: what you do here changes nothing that is kept.",
    ]
    if record.argv:
        lines.append("$FIREBRICK_STEP runs the step again.")
    for line in lines:
        typer.echo(tame(line, colour=False), err=True)
