"""`firebrick paths`: where everything is."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Final

import typer

from firebrick.home import Home

_WHAT: Final = {
    "root": "everything below (set FIREBRICK_HOME to move it)",
    "config_file": "settings",
    "images": "root images, by digest",
    "kernels": "kernels with their initramfs",
    "templates": "snapshots that machines are forked from",
    "machines": "running machines, a directory each",
    "nodes": "sockets of running nodes",
    "runs": "logs and artifacts of `firebrick run`",
    "kept": "machines of failed steps and checkpoints, for a while",
    "builds": "logs and artifacts of `firebrick serve`",
    "database": "builds of `firebrick serve`",
    "results": "artifacts and caches of jobs that actions store",
    "tools": "tools that jobs find in their tool cache",
    "containers": "what is known of images from registries",
    "cache": "what can be fetched or made again",
}


def paths(
    json: Annotated[bool, typer.Option("--json", help="One JSON object: name to path.")] = False,
) -> None:
    """Show where Firebrick keeps its things."""
    home = Home.find()
    places = {name: getattr(home, name) for name in _WHAT}
    if json:
        typer.echo(json_format.dumps({name: str(path) for name, path in places.items()}, indent=2))
        return
    widths = (max(map(len, places)), max(len(str(path)) for path in places.values()))
    for name, path in places.items():
        there = "" if path.exists() else " (not made yet)"
        typer.echo(f"{name:<{widths[0]}}  {path!s:<{widths[1]}}  {_WHAT[name]}{there}")
