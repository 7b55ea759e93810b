"""`firebrick workflow graph`: the jobs of a workflow and what they need, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firebrick.cli.errors import UsageError
from firebrick.workflow.diagram import draw
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.yaml import MAX_BYTES


def graph(
    file: Annotated[Path, typer.Argument(help="A workflow file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it. Default: stdout.", show_default=False)
    ] = None,
) -> None:
    """Draw the jobs of a workflow file and what they need, as SVG."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="Name a workflow file.") from error
    picture = draw(read_workflow(content, str(file)))
    if output is None:
        typer.echo(picture, nl=False)
        return
    try:
        output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
