"""`firebrick run`: a workflow of a repository, here and now, each job in a machine of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from firebrick.cli.errors import FAILURE, INTERRUPTED, SUCCESS, UsageError
from firebrick.cli.eventoption import EventOption, InputOption, PayloadOption, VarOption
from firebrick.cli.node import DriverOption, JailOption, told_settings, warn
from firebrick.home import Home

# What only a run needs is imported when there is one: `firebrick --help` does not wait for it.
if TYPE_CHECKING:
    from firebrick.cli.order import Wish
    from firebrick.cli.plain import View
    from firebrick.node.contract import LiveRun, RunResult
    from firebrick.node.settings import NodeSettings

RUNS_KEPT: Final = 20
_TICK_S: Final = 0.1


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
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", "-s", metavar="NAME[=VALUE]", help="A secret; without value, the variable NAME."),
    ] = None,
    event: EventOption = None,
    payload: PayloadOption = None,
    inputs: InputOption = None,
    var: VarOption = None,
    artifacts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where artifacts go. Default: the directory of the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as JSON.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Plain lines, all of them, on a terminal too.")
    ] = False,
    driver: DriverOption = None,
    jail: JailOption = None,
) -> None:
    """Run a workflow of a repository, each job in a machine of its own.

    Without WORKFLOW the only file in .github/workflows or .forgejo/workflows is run; where there is none, what the sources call for (cargo,
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
        event=EventWish(
            name=event,
            payload=payload,
            inputs=read_pairs(inputs or (), "--input"),
            variables=read_pairs(var or (), "--var"),
        ),
    )
    with _view(as_json=as_json, verbose=verbose) as view:
        status = asyncio.run(_carry_out(wish, view, artifacts, told_settings(Home.find(), driver, jail)))
    raise typer.Exit(status)


def read_secrets(words: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for the variable of that name. Raises UsageError where there is none."""
    found: dict[str, str] = {}
    for word in words:
        name, given, value = word.partition("=")
        if not given:
            if name not in os.environ:
                raise UsageError(
                    f"there is no variable {name} to take the secret from", hint=f"Say {name}=VALUE, or set it."
                )
            value = os.environ[name]
        found[name] = value
    return found


@contextmanager
def _view(*, as_json: bool, verbose: bool) -> Iterator[View]:
    from firebrick.cli.plain import JsonView, PlainView

    view: View
    if as_json:
        view = JsonView(sys.stdout)
    elif not verbose and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        from firebrick.cli.view import LiveView

        view = LiveView(Console())
    else:
        view = PlainView(sys.stdout)
    yield view


async def _carry_out(wish: Wish, view: View, artifacts: Path | None, settings: NodeSettings) -> int:
    from firebrick.cli.order import make_order
    from firebrick.node.node import Node

    home = Home.find()
    name = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
    directory = home.runs / name
    order = await make_order(wish, id=name, artifact_dir=(artifacts or directory / "artifacts").absolute())
    async with Node.open(home, settings=settings, warn=warn) as node:
        _make_room(home.runs)
        directory.mkdir(parents=True)
        async with node.start_run(order) as live:
            with _interrupts(live, view):
                await _follow(live, view, directory / "log.txt")
            result = await live.result()
    _say_where(view, directory, result)
    return _status(result)


async def _follow(live: LiveRun, view: View, log: Path) -> None:
    """Show every event, and keep all of them as lines."""
    from firebrick.cli.plain import PlainView

    with ExitStack() as stack:
        kept = stack.enter_context(PlainView(stack.enter_context(log.open("w", errors="replace"))))
        stack.enter_context(view)
        ticker = asyncio.create_task(_tick(view), name="view-tick")
        stack.callback(ticker.cancel)
        async for event in live.events():
            kept.show(event)
            view.show(event)


async def _tick(view: View) -> None:
    while True:
        view.tick()
        await asyncio.sleep(_TICK_S)


@contextmanager
def _interrupts(live: LiveRun, view: View) -> Iterator[None]:
    """The first signal asks the run to end, the second ends it."""
    from firebrick.node.event import CancelCause

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asked = False

    def interrupt(cause: CancelCause) -> None:
        nonlocal asked
        if asked:
            task.cancel()
            return
        asked = True
        view.notice("Cancelling: steps are asked to end, those with always() still run. Once more ends it at once.")
        live.cancel(cause)

    causes = {
        signal.SIGINT: CancelCause.USER,
        signal.SIGTERM: CancelCause.SHUTDOWN,
        signal.SIGHUP: CancelCause.SHUTDOWN,
    }
    for number, cause in causes.items():
        loop.add_signal_handler(number, interrupt, cause)
    try:
        yield
    finally:
        for number in causes:
            loop.remove_signal_handler(number)


def _say_where(view: View, directory: Path, result: RunResult) -> None:
    """Nobody needs the log of a success; everybody that of a failure."""
    if result.conclusion.value != "success":
        view.notice(f"The whole log is {directory / 'log.txt'}")


def _status(result: RunResult) -> int:
    match result.conclusion.value:
        case "success" | "skipped":
            return SUCCESS
        case "cancelled":
            return INTERRUPTED
        case _:
            return FAILURE


def _make_room(runs: Path) -> None:
    """Keep what the latest runs have left, `RUNS_KEPT` of them with the one that begins."""
    if runs.is_dir():
        older = sorted(entry for entry in runs.iterdir() if entry.is_dir())
        for entry in older[: max(0, len(older) - RUNS_KEPT + 1)]:
            shutil.rmtree(entry, ignore_errors=True)
