"""`firebrick tools`: what jobs find in their tool cache."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from firebrick.cli.errors import UsageError
from firebrick.cli.terminal import duration, size, tame
from firebrick.home import Home

if TYPE_CHECKING:
    from firebrick.node.tool.entry import ToolEntry
    from firebrick.node.tool.name import StoredTool, ToolName
    from firebrick.node.tool.shelf import ToolShelf

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Add, list and remove what jobs find in their tool cache."
)


@app.callback()
def main() -> None:
    """Add, list and remove what jobs find in their tool cache."""


def open_shelf(home: Home) -> ToolShelf:
    """The tools of the home, within what its settings allow."""
    from firebrick.node.settings import read_settings
    from firebrick.node.tool.shelf import ToolShelf

    return ToolShelf(home.tools, read_settings(home.config_file).tools)


@app.command()
def add(
    tool: Annotated[str, typer.Argument(help="Its name, as the action that looks for it says it: node, Python, go.")],
    version: Annotated[str, typer.Argument(help="The whole version, as actions look for it: 20.11.1, or 3.14.0-rc.1.")],
    source: Annotated[
        Path, typer.Argument(help="The directory of the tool, or a tar archive of it.", metavar="SOURCE")
    ],
    arch: Annotated[
        str | None, typer.Option("--arch", help="As actions say it: x64, arm64. Default: that of this host.")
    ] = None,
) -> None:
    """Add a tool for the jobs of all repositories, in place of one of the same name. An archive that has one directory and nothing else is taken from
    in there."""
    from firebrick.node.context import architecture
    from firebrick.node.tool.name import ToolName

    name = ToolName.parse(tool, version, arch or architecture().lower())
    if name is None:
        raise UsageError(
            f"{tool!r}, {version!r} and {arch or 'this architecture'!r} do not name a tool",
            hint="Each is letters, digits and _.+~-, and begins with none of these but _.",
        )
    if not name.is_findable:
        raise UsageError(
            f"no job would find {tool} {version}: actions look for whole semantic versions alone",
            hint="As 20.11.1 or 3.14.0-rc.1: three numbers, without a `v`, and `-` in the place of `+`.",
        )
    kept = asyncio.run(_add(open_shelf(Home.find()), name, source))
    typer.echo(f"{name} {size(kept.size)} sha256:{kept.sha256}")


async def _add(shelf: ToolShelf, name: ToolName, source: Path) -> StoredTool:
    from firebrick.node.tool.archive import bring
    from firebrick.task import shielded

    async with shelf.drafted() as draft:
        most = shelf.limits.tool_bytes
        place = await shielded(asyncio.to_thread(bring, source, draft, most_bytes=most))
        kept = await shelf.put(place, name, None)
    assert kept is not None, "what an administrator adds makes room for nobody"
    return kept


@app.command("ls")
def list_(as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False) -> None:
    """List the tools that are kept: those added here, then those jobs have added, by repository and ref."""
    entries = open_shelf(Home.find()).entries()
    if as_json:
        typer.echo(json.dumps([_summary(entry) for entry in entries], indent=1))
    elif entries:
        _print_table(entries)
    else:
        typer.echo("no tool is kept", err=True)


def _summary(entry: ToolEntry) -> dict[str, object]:
    name = entry.name
    record: dict[str, object] = msgspec.to_builtins(entry.record)
    return {"tool": name.tool, "version": name.version, "arch": name.arch, "used": entry.used} | {
        key: record[key] for key in ("repository", "tenant", "scope", "sha256", "size", "at")
    }


def _print_table(entries: list[ToolEntry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("tool", "version", "arch", "of", "ref", "size", "used", "digest"):
        table.add_column(heading, justify="right" if heading in ("size", "used") else "left", no_wrap=True)
    for entry in entries:
        words = (
            *(entry.name.tool, entry.name.version, entry.name.arch),
            "everybody" if entry.is_seed else entry.record.repository,
            entry.record.scope,
            size(entry.record.size),
            f"{duration(max(0.0, time.time() - entry.used))} ago",
            entry.record.sha256[:12],
        )
        table.add_row(*(Text(tame(word, colour=False)) for word in words))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def rm(
    tool: Annotated[str | None, typer.Argument(help="The name of a tool.")] = None,
    version: Annotated[str | None, typer.Argument(help="Only this version.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All tools.")] = False,
) -> None:
    """Remove a tool, whoever has added it. Machines that run keep it."""
    if (tool is None) != everything:
        raise UsageError("say which tool, or --all", hint="`firebrick tools ls` lists them.")
    shelf = open_shelf(Home.find())
    gone = [e for e in shelf.entries() if tool in (None, e.name.tool) and version in (None, e.name.version)]
    if tool is not None and not gone:
        raise UsageError(
            f"no tool {' '.join(filter(None, (tool, version)))} is kept",
            hint="`firebrick tools ls` lists those that are.",
        )
    asyncio.run(shelf.remove(gone))
    typer.echo(f"removed {len(gone)}", err=True)
