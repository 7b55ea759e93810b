"""One run of a workflow, as the command line carries it out: shown, kept, and asked to end by signals."""

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firebrick.cli.errors import FAILURE, INTERRUPTED, SUCCESS
from firebrick.cli.node import warn
from firebrick.home import Home

# What only a run needs is imported when there is one: `firebrick --help` does not wait for it.
if TYPE_CHECKING:
    from firebrick.cli.again import Again
    from firebrick.cli.order import Wish
    from firebrick.cli.plain import View
    from firebrick.node.contract import LiveRun, RunHost, RunResult
    from firebrick.node.event import MachineKept
    from firebrick.node.order import RunOrder
    from firebrick.node.settings import NodeSettings

RUNS_KEPT: Final = 20
_TICK_S: Final = 0.1
_MOST_SAID: Final = 5


@contextmanager
def open_view(*, as_json: bool, verbose: bool) -> Iterator[View]:
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


async def carry_out(
    wish: Wish, view: View, artifacts: Path | None, settings: NodeSettings, *, again: Again | None = None
) -> int:
    """One run, shown and kept; `again` is what it goes on from. The result is an exit status."""
    from firebrick.cli.again import remember
    from firebrick.cli.order import make_order
    from firebrick.node.node import Node

    home = Home.find()
    name = new_run()
    directory = home.runs / name
    given = again.workflow if again is not None else None
    order = await make_order(wish, id=name, artifact_dir=(artifacts or directory / "artifacts").absolute(), given=given)
    if again is not None:
        order = replace(order, rerun=again.rerun, collect=again.collect)
    async with Node.open(home, settings=settings, warn=warn) as node:
        make_room(home.runs)
        directory.mkdir(parents=True)
        remember(directory, wish, order)
        kept: list[MachineKept] = []
        result = await follow(node, order, view, directory / "log.txt", kept)
    _say_where(view, directory, result)
    _say_kept(view, name, kept)
    return run_status(result)


def new_run() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


async def follow(node: RunHost, order: RunOrder, view: View, log: Path, kept: list[MachineKept]) -> RunResult:
    """Carry the order out, show it, and keep its log."""
    async with node.start_run(order) as live:
        with _interrupts(live, view):
            await _follow(live, view, log, kept)
        return await live.result()


async def _follow(live: LiveRun, view: View, log: Path, seen: list[MachineKept]) -> None:
    """Show every event, and keep all of them as lines."""
    from firebrick.cli.plain import PlainView
    from firebrick.node.event import MachineKept

    with ExitStack() as stack:
        kept = stack.enter_context(PlainView(stack.enter_context(log.open("w", errors="replace"))))
        stack.enter_context(view)
        ticker = asyncio.create_task(_tick(view), name="view-tick")
        stack.callback(ticker.cancel)
        async for event in live.events():
            kept.show(event)
            view.show(event)
            if isinstance(event, MachineKept):
                seen.append(event)


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


def _say_kept(view: View, run: str, kept: list[MachineKept]) -> None:
    """The last lines: what to type to look into the machines of steps that failed."""
    jobs = list(dict.fromkeys(event.job for event in kept if event.kind != "before"))
    for job in jobs[:_MOST_SAID]:
        view.notice(f"A machine is kept: firebrick debug {run} {job}")
    if len(jobs) > _MOST_SAID:
        view.notice(f"{len(jobs) - _MOST_SAID} more are kept: firebrick kept ls")


def run_status(result: RunResult) -> int:
    match result.conclusion.value:
        case "success" | "skipped":
            return SUCCESS
        case "cancelled":
            return INTERRUPTED
        case _:
            return FAILURE


def make_room(runs: Path) -> None:
    """Keep what the latest runs have left, `RUNS_KEPT` of them with the one that begins."""
    if runs.is_dir():
        older = sorted(entry for entry in runs.iterdir() if entry.is_dir())
        for entry in older[: max(0, len(older) - RUNS_KEPT + 1)]:
            shutil.rmtree(entry, ignore_errors=True)
