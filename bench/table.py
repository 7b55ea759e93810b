"""The table on the terminal and the list in build/bench.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.row import Row


def shown(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def print_table(console: Console, rows: Sequence[Row], title: str) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("unit")
    for heading in ("floor", "firebrick", "ratio", "limit", "spread"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        bound = "" if row.limit is None else f"{'≥' if row.more_is_better else '≤'} {row.limit:g}"
        verdict = "" if row.limit is None else "[green]met[/]" if row.ok else "[red]missed[/]"
        table.add_row(
            row.name,
            row.unit,
            shown(row.floor),
            shown(row.value),
            f"{row.ratio:.2f}",
            bound,
            f"{row.spread:.0%}",
            verdict,
        )
    console.print(table)


def write_json(rows: Sequence[Row], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
