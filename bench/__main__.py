"""python -m bench [--strict] [WORD...]: measure, print, write build/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import language, machines, pages, served, steps, work
from bench.bed import Bed, made
from bench.lab.outside import lab
from bench.row import Row
from bench.table import print_table, write_json

TARGET: Final = Path(__file__).resolve().parent.parent / "build" / "bench.json"
GROUPS: Final[dict[str, Callable[[Bed], Awaitable[list[Row]]]]] = {
    "boot": machines.boot,
    "forks": machines.forks,
    "commands": work.commands,
    "bytes": work.bytes_moved,
    "pages": pages.pages,
    "steps": steps.steps,
    "language": language.language,
    "lab": lab,
    "whole": served.whole,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Firebrick against bare QEMU and bare Firecracker."
    )
    parser.add_argument("--strict", action="store_true", help="end with 1 if a limit is missed")
    parser.add_argument(
        "group", nargs="*", metavar="GROUP", help=f"what to measure: {', '.join(GROUPS)} (default: everything)"
    )
    asked = parser.parse_args()
    if unknown := set(asked.group) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    rows: list[Row] = []
    with made() as bed:
        for name, measure in GROUPS.items():
            if not asked.group or name in asked.group:
                with console.status(f"measuring: {name}"):
                    rows += asyncio.run(_measured(measure, bed))
    title = f"Firebrick against bare QEMU ({bed.accelerator}, {platform.release()})"
    print_table(console, rows, title)
    write_json(rows, TARGET)
    missed = [row.name for row in rows if not row.ok]
    limits = sum(row.limit is not None for row in rows)
    console.print(
        f"\n{limits - len(missed)} of {limits} limits met" + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    sys.exit(1 if asked.strict and missed else 0)


async def _measured(measure: Callable[[Bed], Awaitable[list[Row]]], bed: Bed) -> list[Row]:
    return await measure(bed)


if __name__ == "__main__":
    main()
