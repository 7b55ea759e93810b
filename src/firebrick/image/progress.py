"""How long work says how far it is. The builders know only this; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from the task that does the work, often; must return at once and must not raise."""

    def stage(self, text: str, *, total: float | None = None) -> None:
        """A new stage begins: a few words, no full stop. `total` is how much there is to do in it, None where nobody knows."""

    def advance(self, done: float, *, total: float | None = None) -> None:
        """So much of the stage is done, of `total` if that is known only now."""

    def line(self, text: str) -> None:
        """One line a tool printed, for those who want to see everything."""


class Silent:
    """Shows nothing."""

    def stage(self, text: str, *, total: float | None = None) -> None: ...

    def advance(self, done: float, *, total: float | None = None) -> None: ...

    def line(self, text: str) -> None: ...


SILENT: Progress = Silent()
