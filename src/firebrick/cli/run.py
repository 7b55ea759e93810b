"""`firebrick run`: a workflow of a repository, here and now, each job in a machine of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from firebrick.cli.carry import carry_out, open_view
from firebrick.cli.eventoption import EventOption, InputOption, PayloadOption, VarOption
from firebrick.cli.node import CheckpointOption, DriverOption, JailOption, KeepOption, told_settings
from firebrick.cli.runoption import (
    ArtifactsOption,
    EnvironmentSecretOption,
    EnvironmentVarOption,
    JsonOption,
    SecretOption,
    VerboseOption,
    read_environments,
    read_secrets,
)
from firebrick.home import Home


def run(
    workflow: Annotated[
        str | None, typer.Argument(help="A workflow: its file, or its name. Default: the only one there is.")
    ] = None,
    repository: Annotated[
        Path, typer.Option("-C", "--repository", metavar="DIR", help="The repository, or a directory of sources.")
    ] = Path(),
    job: Annotated[
        list[str] | None, typer.Option("--job", "-j", help="Run this job and those it needs. May be repeated.")
    ] = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="Run this instead of a workflow.")] = None,
    image: Annotated[str | None, typer.Option(help="Use this image, whatever `runs-on` says.")] = None,
    vcpus: Annotated[int, typer.Option(min=1, max=64, help="Virtual processors of each machine.")] = 2,
    memory: Annotated[int, typer.Option(min=64, help="Memory of each machine, in MiB.")] = 2048,
    scratch: Annotated[int, typer.Option(min=16, help="Disk each machine may fill, in MiB.")] = 8192,
    timeout: Annotated[float, typer.Option(min=0.01, help="Minutes the whole run may take.")] = 60.0,
    network: Annotated[bool, typer.Option("--network", help="Let jobs make outgoing connections.")] = False,
    secret: SecretOption = None,
    environment_secret: EnvironmentSecretOption = None,
    environment_var: EnvironmentVarOption = None,
    event: EventOption = None,
    payload: PayloadOption = None,
    inputs: InputOption = None,
    var: VarOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    keep: KeepOption = None,
    checkpoint: CheckpointOption = None,
    verify_reproducible: Annotated[
        bool,
        typer.Option(
            "--verify-reproducible",
            help="Run it twice, in machines with the same time, names and random numbers, and compare the artifacts.",
        ),
    ] = False,
    driver: DriverOption = None,
    jail: JailOption = None,
) -> None:
    """Run a workflow of a repository, each job in a machine of its own.

    Without WORKFLOW the only file in .forgejo/workflows, .gitea/workflows or .github/workflows, the first that has any, is run; where there is none, what the sources call for (cargo,
    autotools, cmake, python, make, npm).

    Ends with 0 success, 1 failure, 2 wrong usage or a workflow with mistakes, 130 cancelled. Ctrl-C asks the steps to end and lets those
    with `always()` run; a second one ends at once.
    """
    from firebrick.cli.event import EventWish, read_pairs
    from firebrick.cli.order import Wish
    from firebrick.node.order import Resources

    resources = Resources(vcpus=vcpus, memory_mib=memory, scratch_mib=scratch, timeout_s=timeout * 60, network=network)
    wish = Wish(
        repository=repository,
        workflow=workflow,
        command=command,
        jobs=tuple(job or ()),
        image=image,
        resources=resources,
        secrets=read_secrets(secret or []),
        environments=read_environments(environment_secret or [], environment_var or []),
        event=EventWish(
            name=event,
            payload=payload,
            inputs=read_pairs(inputs or (), "--input"),
            variables=read_pairs(var or (), "--var"),
        ),
    )
    settings = told_settings(Home.find(), driver, jail, keep=keep, checkpoint=checkpoint)
    with open_view(as_json=as_json, verbose=verbose) as view:
        if verify_reproducible:
            from firebrick.cli.reproduce import verify

            raise typer.Exit(asyncio.run(verify(wish, view, artifacts, settings, as_json=as_json)))
        raise typer.Exit(asyncio.run(carry_out(wish, view, artifacts, settings)))
