"""When a step's time is over. Steps of a composite action share what the step that uses it has."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """`limit_s` is the time as the workflow states it, `at` the end of it on the monotonic clock, `title` the step whose time it is, `what` it
    is."""

    limit_s: float
    at: float
    title: str = ""
    what: str = "action"

    @classmethod
    def after(cls, limit_s: float, title: str = "", what: str = "action") -> Deadline:
        return cls(limit_s, time.monotonic() + limit_s, title, what)

    @property
    def passed(self) -> str:
        """The error of a step whose time is over."""
        minutes = self.limit_s / 60
        what = f"The {self.what} '{self.title}'" if self.title else "The step"
        return f"{what} has timed out after {minutes:g} minute{'' if minutes == 1 else 's'}."

    @property
    def left_s(self) -> float:
        """Never quite zero: what starts too late is ended at once, and is told to have run out of time."""
        return max(0.001, self.at - time.monotonic())


def earlier(one: Deadline | None, other: Deadline | None) -> Deadline | None:
    """Whichever comes first; None is never."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda deadline: deadline.at)
