"""The options that say what happened, for the verbs that ask about an event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EventOption = Annotated[
    str | None,
    typer.Option(
        "--event", metavar="NAME", help="The event, as push. Default: push, or the first one the workflow has."
    ),
]
PayloadOption = Annotated[
    Path | None,
    typer.Option(
        "--payload",
        metavar="FILE",
        help="The event as the forge sends it, JSON. Default: one the current commit would cause.",
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="An input of `workflow_dispatch`. May be repeated."),
]
VarOption = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A value of the context `vars`. May be repeated."),
]
