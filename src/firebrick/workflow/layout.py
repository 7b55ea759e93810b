"""Where the jobs of a workflow stand in a picture of their needs: columns from left to right, each job right of all it needs.

A line that passes a column of others has a place of its own there, so that it goes between boxes, never behind them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firebrick.workflow.graph import in_order

GAP_X, GAP_Y = 64, 18
_LANE = 6
_SWEEPS = 4
# Beyond so many places, lines go straight: nobody can follow them anyway.
_MAX_LANES = 2_000


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels; `x` and `y` are of the upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Line:
    """From one job to one that needs it: all places in order, the first and the last being the two boxes."""

    source: str
    target: str
    places: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    boxes: Mapping[str, Box]
    lines: tuple[Line, ...]
    width: float
    height: float


def lay_out(sizes: Mapping[str, tuple[float, float]], needs: Mapping[str, Sequence[str]]) -> Layout:
    """`sizes` are width and height of each box. `needs` has no cycle; one that follows from others is not drawn."""
    edges = _reduced(needs)
    columns = _columns(edges)
    last = max(columns.values(), default=0)
    routes = _routes(edges, columns)
    places = _Places(sizes, columns, routes, last)
    return places.layout()


def _reduced(needs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The needs that no other need implies."""
    order = in_order(needs)
    bit = {name: 1 << index for index, name in enumerate(order)}
    behind: dict[str, int] = {}
    kept: dict[str, list[str]] = {name: [] for name in needs}
    for name in order:
        implied = 0
        for need in needs[name]:
            implied |= behind[need]
        kept[name] = [need for need in needs[name] if not implied & bit[need]]
        behind[name] = implied
        for need in needs[name]:
            behind[name] |= bit[need]
    return kept


def _columns(edges: Mapping[str, Sequence[str]]) -> dict[str, int]:
    columns: dict[str, int] = {}
    for name in in_order(edges):
        columns[name] = max((columns[need] + 1 for need in edges[name]), default=0)
    return columns


Route = tuple[str, ...]


def _routes(edges: Mapping[str, Sequence[str]], columns: Mapping[str, int]) -> list[Route]:
    """Every edge as the names of its places. Places in between are named by what no job can be."""
    pairs = [(need, name) for name, wanted in edges.items() for need in wanted]
    lanes = sum(columns[name] - columns[need] - 1 for need, name in pairs)
    if lanes > _MAX_LANES:
        return pairs  # type: ignore[return-value]  # a pair is a route with nothing in between
    return [
        (need, *(f"{need} {name} {column}" for column in range(columns[need] + 1, columns[name])), name)
        for need, name in pairs
    ]


class _Places:
    """Boxes and lanes in their columns; sorted so that few lines cross, then put under one another."""

    def __init__(
        self,
        sizes: Mapping[str, tuple[float, float]],
        columns: Mapping[str, int],
        routes: Sequence[Route],
        last: int,
    ) -> None:
        self._sizes = sizes
        self._routes = routes
        self._columns: list[list[str]] = [[] for _ in range(last + 1)]
        for name in sizes:
            self._columns[columns[name]].append(name)
        self._before: dict[str, list[str]] = {}
        self._after: dict[str, list[str]] = {}
        for route in routes:
            for offset, place in enumerate(route[1:-1], 1):
                self._columns[columns[route[0]] + offset].append(place)
            for left, right in itertools.pairwise(route):
                self._before.setdefault(right, []).append(left)
                self._after.setdefault(left, []).append(right)

    def layout(self) -> Layout:
        for _ in range(_SWEEPS):
            self._sweep(self._columns, self._before)
            self._sweep(self._columns[::-1], self._after)
        boxes = self._boxes()
        lines = tuple(Line(route[0], route[-1], tuple(boxes[place] for place in route)) for route in self._routes)
        jobs = {name: boxes[name] for name in self._sizes}
        width = max((box.x + box.width for box in boxes.values()), default=0)
        height = max((box.y + box.height for box in boxes.values()), default=0)
        return Layout(jobs, lines, width, height)

    def _sweep(self, columns: Sequence[list[str]], beside: Mapping[str, Sequence[str]]) -> None:
        """Each column in the order of the middles of what its places are tied to in the column before."""
        for previous, column in itertools.pairwise(columns):
            rank = {name: index for index, name in enumerate(previous)}
            weight: dict[str, float] = {}
            for name in column:
                tied = [rank[other] for other in beside.get(name, ()) if other in rank]
                weight[name] = sum(tied) / len(tied) if tied else len(previous)
            column.sort(key=weight.__getitem__)

    def _boxes(self) -> dict[str, Box]:
        heights = [self._height(column) for column in self._columns]
        tallest = max(heights, default=0)
        boxes: dict[str, Box] = {}
        x = 0.0
        for column, height in zip(self._columns, heights, strict=True):
            width = max((self._sizes[name][0] for name in column if name in self._sizes), default=0)
            y = (tallest - height) / 2
            for name in column:
                box = Box(x, y, width, self._sizes[name][1] if name in self._sizes else _LANE)
                boxes[name] = box
                y += box.height + GAP_Y
            x += width + GAP_X
        return boxes

    def _height(self, column: Sequence[str]) -> float:
        total = sum(self._sizes[name][1] if name in self._sizes else _LANE for name in column)
        return total + GAP_Y * max(0, len(column) - 1)
