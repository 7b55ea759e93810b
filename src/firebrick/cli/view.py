"""A run on a terminal: what is over stays as lines above, what goes on is redrawn below, the ends of the matter come last."""

from __future__ import annotations

import time
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from firebrick.cli.board import Board, JobCard, StepLine
from firebrick.cli.plain import MARKS, annotation_text, reason
from firebrick.cli.terminal import duration, size, tame, tame_block
from firebrick.node.event import Annotation, Conclusion, Event, JobFinished, RunFinished, StepFinished

RUNNING_TAIL: Final = 6
"""Lines that all running steps of a job have together; each has two at least."""
FAILED_TAIL: Final = 30
_SYMBOLS: Final = {
    Conclusion.SUCCESS: Text("✓", "bold green"),
    Conclusion.FAILURE: Text("✗", "bold red"),
    Conclusion.CANCELLED: Text("■", "bold yellow"),
    Conclusion.SKIPPED: Text("-", "dim"),
    Conclusion.WAITING: Text("○", "cyan"),
}
_FORGIVEN: Final = Text("✗", "bold yellow")
_MARKED: Final = {
    "##[group]": ("▸ ", "bold"),
    "##[error]": ("", "red"),
    "##[warning]": ("", "yellow"),
    "##[notice]": ("", "cyan"),
}
_COLOURS: Final = {"error": "red", "warning": "yellow", "notice": "cyan"}


class LiveView:
    """Steps that are over are one line each, in the order they ended, those that failed with their last lines; those that run show their latest."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        self._spinner = Spinner("dots", style="bold cyan")
        # Refreshed by `tick`, from the thread that also prints: rich's own thread would now and then draw over a line just printed.
        self._live = Live(console=console, get_renderable=self._render, auto_refresh=False, transient=True)
        self._under = ""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        if self._board.finished is not None:
            self._show_end(self._board.finished)

    def show(self, event: Event) -> None:
        self._board.show(event)
        if isinstance(event, StepFinished | JobFinished):
            self._settle(self._board.jobs[event.job], event)

    def tick(self) -> None:
        self._live.refresh()

    def notice(self, text: str) -> None:
        self._console.print(Text(tame_block(text), "yellow"))

    def _settle(self, card: JobCard, event: StepFinished | JobFinished) -> None:
        """Print what is over; it leaves the part that is redrawn."""
        if card.machine and self._under != card.id:
            self._console.print(self._heading(card, again=card.headed))
            self._under, card.headed = card.id, True
        over = (
            self._finished_step(card.steps[event.step]) if isinstance(event, StepFinished) else self._finished_job(card)
        )
        self._console.print(over)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = []
        # The job whose lines stand last above comes first: its steps go on right below them.
        for card in sorted(self._board.jobs.values(), key=lambda card: card.id != self._under):
            if card.conclusion is None:
                parts += self._running_job(card)
        return Group(*parts)

    def _running_job(self, card: JobCard) -> list[RenderableType]:
        if not card.machine:
            mark: RenderableType = self._spinner if card.note else Text("·", "dim")
            return [_row(mark, Text.assemble((_one(card.name), "bold"), "  ", (_one(card.note), "dim")), indent=0)]
        parts: list[RenderableType] = [] if self._under == card.id else [self._heading(card, again=card.headed)]
        lines = max(2, RUNNING_TAIL // max(1, sum(step.runs for step in card.steps)))
        for step in card.steps:
            if step.conclusion is None:
                parts += self._step_now(step, lines)
        return parts

    def _step_now(self, step: StepLine, lines: int) -> list[RenderableType]:
        name = Text(_one(step.name))
        if step.started is None:
            name.stylize("dim")
            return [_row(Text("·", "dim"), name)]
        name.stylize("bold")
        running = _row(self._spinner, name, duration(max(0.0, time.time() - step.started)))
        return [running, *_tail(step, lines, "dim cyan")]

    def _heading(self, card: JobCard, *, again: bool = False) -> RenderableType:
        """Jobs run side by side: a short one says that what follows is of this job again."""
        how = f"  {_one(card.image)} · {card.start} in {card.start_ms:.0f} ms · {card.machine}"
        title = Text.assemble((_one(card.name), "bold"), ("" if again else how, "dim"))
        return Rule(title, align="left", style="dim", characters="─")

    def _finished_step(self, step: StepLine) -> RenderableType:
        assert step.conclusion is not None
        name = Text(_one(step.name))
        if step.conclusion is Conclusion.SKIPPED:
            name.stylize("dim")
            return _row(_SYMBOLS[step.conclusion], name)
        if step.forgiven:
            name.append(" (continue-on-error)", "yellow")
            return Group(_row(_FORGIVEN, name, duration(step.seconds)), *_tail(step, FAILED_TAIL, "yellow"))
        row = _row(_SYMBOLS[step.conclusion], name, duration(step.seconds))
        if step.conclusion is Conclusion.FAILURE:
            return Group(row, *_tail(step, FAILED_TAIL, "red"))
        return row

    def _finished_job(self, card: JobCard) -> RenderableType:
        assert card.conclusion is not None
        text = Text.assemble((_one(card.name), "bold"), f" {MARKS[card.conclusion]}")
        text.append(_one(reason(card.conclusion, card.message)))
        return _row(
            _SYMBOLS[card.conclusion],
            text,
            "" if card.conclusion is Conclusion.SKIPPED else duration(card.seconds),
            indent=0,
        )

    def _show_end(self, finished: RunFinished) -> None:
        summaries = [step.summary for card in self._board.jobs.values() for step in card.steps if step.summary]
        for summary in summaries:
            self._console.print(Text(f"  {tame_block(summary.rstrip(), indent='  ')}"), style="dim")
        for annotation in self._board.annotations:
            where = self._where(annotation)
            text = tame_block(annotation_text(annotation), indent="    ")
            self._console.print(Text.assemble(where, (text, _COLOURS.get(annotation.level, ""))))
        if self._board.artifacts:
            self._console.print(self._artifacts())
        ending = Text.assemble(
            (_one(self._board.workflow), "bold"), f" {MARKS[finished.conclusion]} in {duration(finished.seconds)}"
        )
        ending.append(_one(reason(finished.conclusion, finished.message)))
        self._console.print(Text.assemble(_SYMBOLS[finished.conclusion], " ", ending))

    def _where(self, annotation: Annotation) -> str:
        """The job, of several, and the step, where the annotation has no place of its own: else nobody knows what has ended so."""
        card = self._board.jobs[annotation.job]
        words = [card.name] if len(self._board.jobs) > 1 else []
        if not annotation.file and not annotation.title and 0 <= annotation.step < len(card.steps):
            words.append(card.steps[annotation.step].name)
        return "".join(f"{_one(word)}: " for word in words)

    def _artifacts(self) -> Table:
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("artifact")
        table.add_column("size", justify="right")
        table.add_column("sha256", style="dim")
        for artifact in self._board.artifacts:
            table.add_row(_one(artifact.path), size(artifact.size), artifact.sha256[:16])
        return table


def _row(mark: RenderableType, text: Text, time_: str = "", *, indent: int = 2) -> Table:
    """`mark text ........ time`, the text cut rather than wrapped."""
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(width=1)
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    row.add_column(justify="right", no_wrap=True, style="dim")
    row.add_row(mark, text, time_)
    if not indent:
        return row
    outer = Table.grid(expand=True)
    outer.add_column(width=indent)
    outer.add_column(ratio=1)
    outer.add_row("", row)
    return outer


def _tail(step: StepLine, count: int, style: str) -> list[RenderableType]:
    lines = list(step.tail)[-count:] if count else []
    bar = Text("    │ ", style)
    shown: list[RenderableType] = []
    above = step.lines - len(lines)
    if above and lines:
        shown.append(Text.assemble(bar, (f"… {above} line{'' if above == 1 else 's'} above", "dim")))
    for line in lines:
        text = Text.assemble(bar, _log_text(line))
        text.no_wrap, text.overflow = True, "ellipsis"
        shown.append(text)
    return shown


def _log_text(line: str) -> Text:
    """A line as the guest coloured it; the marks of groups and annotations become what they mean."""
    for mark, (before, style) in _MARKED.items():
        if line.startswith(mark):
            return Text(before + _one(line.removeprefix(mark)), style)
    return Text.from_ansi(tame(line, colour=True))


def _one(text: str) -> str:
    return tame(text, colour=False)
