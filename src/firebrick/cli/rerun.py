"""`firebrick rerun`: on with a job of an earlier run, from a checkpoint; or another attempt at a build of a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from firebrick.cli.carry import carry_out, open_view
from firebrick.cli.errors import UsageError
from firebrick.cli.node import CheckpointOption, DriverOption, JailOption, KeepOption, told_settings
from firebrick.cli.remote import ServerOption, ask, say
from firebrick.cli.runoption import (
    ArtifactsOption,
    EnvironmentSecretOption,
    JsonOption,
    SecretOption,
    VerboseOption,
    read_environments,
    read_secrets,
)
from firebrick.home import Home

if TYPE_CHECKING:
    from firebrick.node.kept.shelf import Entry
    from firebrick.node.order import EnvironmentOrder


def rerun(
    run: Annotated[
        str,
        typer.Argument(
            help="A run, the beginning of its name, or `last`: the last one with a checkpoint. Or a build of a server."
        ),
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
    failed: Annotated[
        bool,
        typer.Option("--failed", help="Of a build of a server, only the jobs that failed, and those that need them."),
    ] = False,
    server: ServerOption = None,
    secret: SecretOption = None,
    environment_secret: EnvironmentSecretOption = None,
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

    With --server it is a build of that server, which runs it again, on the same commit: all of it; with --failed only what failed; with
    --from-step from a checkpoint, where the server has one. What the new build is called is printed.
    """
    if server is not None:
        _refuse({"secret": secret, "environment-secret": environment_secret, "artifacts": artifacts, "json": as_json})
        _refuse({"keep": keep, "checkpoint": checkpoint, "driver": driver, "jail": jail is not None})
        _rerun_build(server, run, job, from_step, command, failed=failed)
        return
    if failed:
        raise UsageError("--failed is for builds of a server", hint="Name it with --server.")
    from firebrick.cli.again import Again, recall, secret_names, workflow_of
    from firebrick.node.kept.rerun import Rerun

    home = Home.find()
    settings = told_settings(home, driver, jail, keep=keep, checkpoint=checkpoint)
    entry = _checkpoint(home, run, job, from_step)
    asked = recall(home.runs / entry.record.run)
    secrets = read_secrets(secret or [])
    environments = _given(asked.wish.environments, read_environments(environment_secret or [], []))
    missing = sorted(set(asked.secrets) - set(secret_names(secrets, environments)))
    if missing:
        again = " ".join(f"--{'environment-' if ':' in name else ''}secret {name}" for name in missing)
        raise UsageError(
            f"run {entry.record.run} had the secrets {', '.join(missing)}, which are not kept",
            hint=f"Give them again: {again}",
        )
    wish = replace(asked.wish, secrets=secrets, environments=environments)
    going_on = Again(rerun=Rerun(entry=entry, command=command), workflow=workflow_of(asked), collect=asked.collect)
    with open_view(as_json=as_json, verbose=verbose) as view:
        raise typer.Exit(asyncio.run(carry_out(wish, view, artifacts, settings, again=going_on)))


def _refuse(given: Mapping[str, object]) -> None:
    """What a server decides by its own settings is not taken and forgotten."""
    for name, value in given.items():
        if value:
            raise UsageError(
                f"--{name} has no effect on a build of a server",
                hint="Its secrets and settings are those of its config.toml; leave --server and FIREBRICK_SERVER out for a run of this host.",
            )


def _rerun_build(
    server: str, build: str, job: str | None, from_step: int | None, command: str | None, *, failed: bool
) -> None:
    given = {"failed": failed, "job": job, "from_step": from_step, "command": command}
    body: dict[str, object] = {name: value for name, value in given.items() if value}
    say(ask(server, "POST", f"/build/{quote(build, safe='')}/rerun", body)["build_id"])


def _given(before: Mapping[str, EnvironmentOrder], now: Mapping[str, EnvironmentOrder]) -> dict[str, EnvironmentOrder]:
    """Each environment with the variables it had and the secrets that are given now."""
    known = {name: replace(each, secrets=now[name].secrets if name in now else {}) for name, each in before.items()}
    return {**now, **known}


def _checkpoint(home: Home, run: str, job: str | None, step: int | None) -> Entry:
    from firebrick.cli.kept import open_shelf
    from firebrick.node.errors import NodeError
    from firebrick.node.kept.shelf import Kind

    label = None if step is None else f"before-{step}"
    try:
        return open_shelf(home).find(run, job, label, kind=Kind.BEFORE)
    except NodeError as error:
        raise NodeError(f"cannot go on from a step: {error}", hint=error.hint) from error
