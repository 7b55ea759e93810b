"""One line of the table: what a thing costs bare, what it costs with Firebrick, and how far apart the two may be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`limit` bounds `ratio` (value / floor): from above for what should be small, from below where `more_is_better`. What nobody has set a limit
    for has none, and is there to be compared.

    `spread` is how far the value's single measurements lie apart, (max - min) / median: what the figure is worth."""

    name: str
    unit: str
    floor: float
    value: float
    limit: float | None
    more_is_better: bool = False
    spread: float = 0.0

    @property
    def ratio(self) -> float:
        return self.value / self.floor

    @property
    def ok(self) -> bool:
        if self.limit is None:
            return True
        return self.ratio >= self.limit if self.more_is_better else self.ratio <= self.limit

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "unit": self.unit,
            "floor": round(self.floor, 6),
            "value": round(self.value, 6),
            "ratio": round(self.ratio, 4),
            "limit": self.limit,
            "ok": self.ok,
        }


def compared(
    name: str,
    unit: str,
    floor: Sequence[float],
    value: Sequence[float],
    limit: float | None,
    *,
    more_is_better: bool = False,
) -> Row:
    """The row of two series of measurements: their medians."""
    middle = statistics.median(value)
    return Row(
        name=name,
        unit=unit,
        floor=statistics.median(floor),
        value=middle,
        limit=limit,
        more_is_better=more_is_better,
        spread=(max(value) - min(value)) / middle if middle else 0.0,
    )
