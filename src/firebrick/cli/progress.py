"""How building looks: a bar and the time it takes on a terminal, one line a stage everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from firebrick.cli.terminal import duration, tame
from firebrick.image.progress import Progress as ProgressContract


class LiveProgress:
    """One bar for the stage under way; finished stages stay above it with the time they took."""

    def __init__(self, console: Console, title: str, *, verbose: bool) -> None:
        self._title = title
        self._verbose = verbose
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None
        self._stage = ""
        self._since = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._finish_stage()
        self._bars.stop()

    def stage(self, text: str, *, total: float | None = None) -> None:
        self._finish_stage()
        self._stage, self._since = text, time.monotonic()
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(f"[bold]{_said(self._title)}[/] {_said(text)}", total=total)

    def advance(self, done: float, *, total: float | None = None) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def line(self, text: str) -> None:
        if self._verbose:
            self._bars.console.print(tame(text, colour=False), style="dim", markup=False, highlight=False)

    def _finish_stage(self) -> None:
        if self._stage:
            took = duration(time.monotonic() - self._since)
            self._bars.console.print(
                f"[green]✓[/] [bold]{_said(self._title)}[/] {_said(self._stage)} [dim]{took}[/]", highlight=False
            )
        self._stage = ""


class PlainProgress:
    """One line a stage, and with `verbose` what the tools say."""

    def __init__(self, out: TextIO, title: str, *, verbose: bool) -> None:
        self._out = out
        self._title = title
        self._verbose = verbose

    def stage(self, text: str, *, total: float | None = None) -> None:  # noqa: ARG002 - the contract's
        self._say(tame(f"{self._title}: {text}", colour=False))

    def advance(self, done: float, *, total: float | None = None) -> None: ...

    def line(self, text: str) -> None:
        if self._verbose:
            self._say(f"  {tame(text, colour=False)}")

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _said(text: str) -> str:
    return escape(tame(text, colour=False))


@contextmanager
def show_progress(title: str, *, verbose: bool = False) -> Iterator[ProgressContract]:
    """What to hand to the store while it makes `title`. Everything goes to stderr: stdout is for results."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainProgress(sys.stderr, title, verbose=verbose)
        return
    with LiveProgress(console, title, verbose=verbose) as progress:
        yield progress
