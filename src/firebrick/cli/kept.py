"""`firebrick kept`: the machines of failed steps, and checkpoints."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from firebrick.cli.errors import UsageError
from firebrick.cli.terminal import duration, size, tame
from firebrick.home import Home

if TYPE_CHECKING:
    from firebrick.node.kept.shelf import Entry, KeptShelf

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List and remove the machines that are kept of runs."
)


@app.callback()
def main() -> None:
    """List and remove the machines that are kept of runs: those of failed steps, and checkpoints."""


def open_shelf(home: Home) -> KeptShelf:
    """The kept machines of the home, within what its settings allow."""
    from firebrick.node.kept.quota import Quota
    from firebrick.node.kept.shelf import KeptShelf
    from firebrick.node.settings import read_settings

    settings = read_settings(home.config_file)
    return KeptShelf(home, Quota(mib=settings.keep_mib, count=settings.keep_count))


@app.command("ls")
def list_(as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False) -> None:
    """List what is kept, the oldest first. What is over its time is removed first."""
    shelf = open_shelf(Home.find())
    asyncio.run(shelf.sweep())
    entries = shelf.entries()
    if as_json:
        records = [{"label": e.record.label, "path": str(e.path), **msgspec.to_builtins(e.record)} for e in entries]
        typer.echo(json.dumps(records, indent=1))
    elif entries:
        _print_table(entries)
    else:
        typer.echo("no machine is kept", err=True)


def _print_table(entries: list[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("run", "job", "step", "what", "size", "took", "goes in"):
        left = heading in ("run", "job", "step", "what")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for entry in entries:
        record = entry.record
        words = (
            record.run,
            record.job,
            record.label,
            record.name,
            size(record.bytes),
            f"{record.milliseconds:.0f} ms",
            duration(max(0.0, record.expires - time.time())),
        )
        table.add_row(*(Text(tame(word, colour=False)) for word in words))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def rm(
    run: Annotated[str | None, typer.Argument(help="A run, the beginning of its name, or `last`.")] = None,
    job: Annotated[str | None, typer.Argument(help="Only of this job; also `caller / job`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of all runs.")] = False,
) -> None:
    """Remove what is kept of a run. Shells that are open in copies of it stay."""
    if (run is None) != everything:
        raise UsageError("say which run, or --all", hint="`firebrick kept ls` lists them.")
    shelf = open_shelf(Home.find())
    entries = shelf.entries()
    if run is not None:
        meant = shelf.run_named(run)
        entries = [e for e in entries if e.record.run == meant and (job is None or e.record.is_of(job))]
        if not entries:
            raise UsageError(f"nothing of job {job} of run {meant} is kept", hint="`firebrick kept ls` lists what is.")
    asyncio.run(shelf.remove(entries))
    typer.echo(f"removed {len(entries)}, {size(sum(entry.record.bytes for entry in entries))}", err=True)
