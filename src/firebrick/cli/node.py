"""What is said on the command line of how a node runs its machines."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from firebrick.cli.terminal import tame
from firebrick.home import Home
from firebrick.node.settings import DriverName, NodeSettings, read_settings

DriverOption = Annotated[
    DriverName | None,
    typer.Option("--driver", help="What runs the machines. [default: `driver` of [node] in config.toml, or qemu]"),
]
JailOption = Annotated[
    bool | None,
    typer.Option(
        "--jail/--no-jail",
        help="Whether a VMM is jailed, which needs root. [default: `jail` of [node], or what the driver is meant for]",
        show_default=False,
    ),
]


def told_settings(home: Home, driver: DriverName | None, jail: bool | None) -> NodeSettings:
    """The node's settings of the home, with what was said beside them. Raises NodeError."""
    said = {name: value for name, value in (("driver", driver), ("jail", jail)) if value is not None}
    return msgspec.structs.replace(read_settings(home.config_file), **said)


def warn(text: str) -> None:
    print(f"warning: {tame(text, colour=False)}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command line
