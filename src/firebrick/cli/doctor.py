"""`firebrick doctor`: every thing a host needs, what was found, and what to do about what is missing."""

from __future__ import annotations

import asyncio
import json as json_format
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firebrick.cli import host, production
from firebrick.cli.errors import UsageError
from firebrick.cli.host import Finding, Verdict
from firebrick.cli.terminal import tame
from firebrick.home import Home
from firebrick.node.errors import SettingsError
from firebrick.node.settings import NodeSettings, read_settings

_MARKS: Final = {Verdict.OK: ("✓", "green"), Verdict.NOTE: ("!", "yellow"), Verdict.MISSING: ("✗", "bold red")}


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON object: `ok`, and a list of findings.")] = False,
) -> None:
    """Say what this host has, what it lacks, and what to do about it. Ends with 1 if machines cannot run."""
    findings = asyncio.run(examine(Home.find()))
    ok = all(finding.verdict is not Verdict.MISSING for finding in findings)
    if json:
        listed = [{"name": f.name, "verdict": f.verdict, "found": f.found, "advice": f.advice} for f in findings]
        typer.echo(json_format.dumps({"ok": ok, "findings": listed}, indent=2))
    else:
        _print(findings, ok=ok)
    if not ok:
        raise typer.Exit(1)


async def examine(home: Home) -> list[Finding]:
    """Every finding, in the order of what depends on what, as bad as it is for a node with the home's settings. Changes nothing but the cached
    answer whether KVM works."""
    settings, said = _settings(home)
    findings = [check() for check in host.LOCAL]
    findings += [*await host.virtual_machines(home), *await production.firecracker()]
    findings += [check() for check in production.LOCAL]
    findings += [host.home_directory(home), *host.stored(home)]
    required = production.required(settings)
    return [production.judge(finding, required) for finding in findings] + said + _server(home, settings, said)


def _settings(home: Home) -> tuple[NodeSettings, list[Finding]]:
    """Of the node; the defaults, and what is wrong, where they cannot be read."""
    try:
        settings = read_settings(home.config_file)
    except SettingsError as error:
        return NodeSettings(), [Finding("settings", Verdict.MISSING, str(error), error.hint)]
    return settings, [
        Finding("settings", Verdict.OK, f"{settings.driver}, {'jailed' if settings.jailed else 'no jail'}")
    ]


def _server(home: Home, node: NodeSettings, said: Sequence[Finding]) -> list[Finding]:
    """Whether `firebrick serve` would start with its settings; nothing more where the file cannot be read at all. Machines run without."""
    # What a server needs takes longer to import than all else here.
    from firebrick.cli.settings import check_network, server_settings

    try:
        settings = server_settings(home=home.root)
        check_network(home, node)
    except UsageError as error:
        known = any(finding.found == str(error) for finding in said)
        return [] if known else [Finding("server settings", Verdict.NOTE, str(error), error.hint)]
    count = len(settings.repositories)
    repositories = f"{count} {'repository' if count == 1 else 'repositories'}"
    return [Finding("server settings", Verdict.OK, f"{settings.host}:{settings.port}, {repositories}")]


def _print(findings: Sequence[Finding], *, ok: bool) -> None:
    console = Console(highlight=False)
    verdict = "Machines can run here." if ok else "Machines cannot run here yet: see the lines marked ✗."
    if not console.is_terminal:
        for finding in findings:
            advice = f" ({finding.advice})" if finding.advice else ""
            line = f"{_MARKS[finding.verdict][0]} {finding.name}: {finding.found}{advice}"
            typer.echo(tame(line, colour=False))
        typer.echo(verdict)
        return
    grid = Table.grid(padding=(0, 1))
    for finding in findings:
        mark, style = _MARKS[finding.verdict]
        grid.add_row(Text(mark, style), Text(finding.name, "bold"), Text(tame(finding.found, colour=False)))
        if finding.advice:
            grid.add_row("", "", Text(tame(f"→ {finding.advice}", colour=False), style))
    console.print(grid)
    console.print(Text(f"\n{verdict}", "green" if ok else "bold red"))
