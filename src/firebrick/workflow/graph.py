"""The graph of needs: every edge leads to a job, and none leads back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from firebrick.workflow.problem import Position

Report = Callable[[Position, str, str], None]


def check_needs(needs: Mapping[str, Sequence[tuple[str, Position]]], report: Report, position: Position) -> None:
    """Report needs that are no job, and cycles. `position` is that of the jobs."""
    names = {name.lower(): name for name in needs}
    edges: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need, place in wanted:
            if need.lower() in names:
                edges[name].append(names[need.lower()])
            else:
                known = ", ".join(other for other in needs if other != name)
                report(
                    place, f"Job '{name}' depends on unknown job '{need}'.", f"one of {known}" if known else "no needs"
                )
    if not any(not wanted for wanted in needs.values()):
        report(position, "The workflow must contain at least one job with no dependencies.", "a job without needs")
    _check_cycle(needs, edges, report)


def _check_cycle(
    needs: Mapping[str, Sequence[tuple[str, Position]]], edges: Mapping[str, Sequence[str]], report: Report
) -> None:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        # graphlib gives the path along which each one is needed by the next.
        need, name = cycle[0], cycle[1]
        place = next(place for wanted, place in needs[name] if wanted.lower() == need.lower())
        path = " -> ".join(reversed(cycle))
        report(
            place,
            f"Job '{name}' depends on job '{need}' which creates a cycle in the dependency graph.",
            f"no cycle: {path}",
        )


def in_order(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Names so that each comes after all it needs, otherwise in the order given. Raises ValueError where there is a cycle."""
    place = {name: index for index, name in enumerate(edges)}
    sorter = TopologicalSorter(edges)
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        found += ready
        sorter.done(*ready)
    return found


def ancestors(name: str, edges: Mapping[str, Iterable[str]]) -> set[str]:
    """All that `name` needs, directly or not."""
    found: set[str] = set()
    pending = list(edges[name])
    while pending:
        need = pending.pop()
        if need not in found:
            found.add(need)
            pending.extend(edges[need])
    return found
