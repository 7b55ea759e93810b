"""`firebrick rerun`: on with a job of an earlier run, from a checkpoint."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from firebrick.cli.carry import carry_out, open_view
from firebrick.cli.errors import UsageError
from firebrick.cli.node import CheckpointOption, DriverOption, JailOption, KeepOption, told_settings
from firebrick.cli.runoption import ArtifactsOption, JsonOption, SecretOption, VerboseOption, read_secrets
from firebrick.home import Home

if TYPE_CHECKING:
    from firebrick.node.kept.shelf import Entry


def rerun(
    run: Annotated[
        str, typer.Argument(help="A run, the beginning of its name, or `last`: the last one with a checkpoint.")
    ],
    job: Annotated[
        str | None,
        typer.Argument(
            help="One of its jobs, where there are checkpoints of several; of a called workflow, as `caller / job`."
        ),
    ] = None,
    from_step: Annotated[
        int | None,
        typer.Option("--from-step", "-n", min=1, help="The step to go on with. Default: that of the first checkpoint."),
    ] = None,
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="What that step runs instead of its script.")
    ] = None,
    secret: SecretOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    keep: KeepOption = None,
    checkpoint: CheckpointOption = None,
    driver: DriverOption = None,
    jail: JailOption = None,
) -> None:
    """Go on with a job of an earlier run from one of its steps, in a copy of its machine as it was before that step.

    There must be a checkpoint before the step: `firebrick run --checkpoint step` takes them all, `--checkpoint before:N` one. The secrets the
    run had are given again, and may be others. Only that job is run; the file of the workflow is taken as it was.
    """
    from firebrick.cli.again import Again, recall, workflow_of
    from firebrick.node.kept.rerun import Rerun

    home = Home.find()
    settings = told_settings(home, driver, jail, keep=keep, checkpoint=checkpoint)
    entry = _checkpoint(home, run, job, from_step)
    asked = recall(home.runs / entry.record.run)
    secrets = read_secrets(secret or [])
    missing = sorted(set(asked.secrets) - set(secrets))
    if missing:
        again = " ".join(f"--secret {name}" for name in missing)
        raise UsageError(
            f"run {entry.record.run} had the secrets {', '.join(missing)}, which are not kept",
            hint=f"Give them again: {again}",
        )
    wish = replace(asked.wish, secrets=secrets)
    going_on = Again(rerun=Rerun(entry=entry, command=command), workflow=workflow_of(asked), collect=asked.collect)
    with open_view(as_json=as_json, verbose=verbose) as view:
        raise typer.Exit(asyncio.run(carry_out(wish, view, artifacts, settings, again=going_on)))


def _checkpoint(home: Home, run: str, job: str | None, step: int | None) -> Entry:
    from firebrick.cli.kept import open_shelf
    from firebrick.node.errors import NodeError
    from firebrick.node.kept.shelf import Kind

    label = None if step is None else f"before-{step}"
    try:
        return open_shelf(home).find(run, job, label, kind=Kind.BEFORE)
    except NodeError as error:
        raise NodeError(f"cannot go on from a step: {error}", hint=error.hint) from error
