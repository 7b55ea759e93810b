"""`firebrick workflow`: what can be said of workflow files without running them."""

from __future__ import annotations

import typer

from firebrick.cli.check import check
from firebrick.cli.evaluate import evaluate
from firebrick.cli.graph import graph
from firebrick.cli.plan import plan

app = typer.Typer(add_completion=False, help="Check and explain workflow files.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Check and explain workflow files."""


app.command()(check)
app.command()(plan)
app.command()(graph)
# An expression may begin with a minus.
app.command("eval", context_settings={"ignore_unknown_options": True})(evaluate)
