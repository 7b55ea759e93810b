"""The graph of needs: every edge leads to a job, and none leads back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import islice

from firebrick.workflow.problem import Position

Report = Callable[[Position, str, str], None]


def check_needs(needs: Mapping[str, Sequence[tuple[str, Position]]], report: Report, position: Position) -> None:
    """Report needs that are no job, and jobs that can never begin because of a cycle. `position` is that of the jobs."""
    names = {name.lower(): name for name in needs}
    known: dict[str, list[tuple[str, Position]]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need, place in wanted:
            if need.lower() in names:
                known[name].append((names[need.lower()], place))
            else:
                message = f"Job '{name}' depends on unknown job '{need}'."
                report(place, message, _others(name, needs))
    if all(needs.values()):
        report(position, "The workflow must contain at least one job with no dependencies.", "a job without needs")
    else:
        _check_cycles(known, report)


def _check_cycles(needs: Mapping[str, Sequence[tuple[str, Position]]], report: Report) -> None:
    """Every need of a job that is in a cycle or behind one, where it is what keeps the job from beginning."""
    edges = {name: [need for need, _ in wanted] for name, wanted in needs.items()}
    stuck = _stuck(edges)
    for name in stuck:
        for need, place in needs[name]:
            if need in stuck:
                message = f"Job '{name}' depends on job '{need}' which creates a cycle in the dependency graph."
                report(place, message, f"no cycle: {' -> '.join(_path(name, need, edges, stuck))}")


_SHOWN = 20


def _others(name: str, needs: Iterable[str]) -> str:
    others = list(islice((other for other in needs if other != name), _SHOWN))
    more = ", ..." if len(others) == _SHOWN else ""
    return f"one of {', '.join(others)}{more}" if others else "no needs"


def _path(name: str, need: str, edges: Mapping[str, Sequence[str]], stuck: Mapping[str, None]) -> list[str]:
    """Along the needs until a job comes again."""
    path = [name, need]
    while path[-1] not in path[:-1] and len(path) < _SHOWN:
        path.append(next(other for other in edges[path[-1]] if other in stuck))
    return path


def _stuck(edges: Mapping[str, Sequence[str]]) -> dict[str, None]:
    """The jobs that never have all they need, in their order."""
    waiting = {name: len(wanted) for name, wanted in edges.items()}
    behind: dict[str, list[str]] = {name: [] for name in edges}
    for name, wanted in edges.items():
        for need in wanted:
            behind[need].append(name)
    ready = [name for name, count in waiting.items() if not count]
    while ready:
        for name in behind[ready.pop()]:
            waiting[name] -= 1
            if not waiting[name]:
                ready.append(name)
    return {name: None for name, count in waiting.items() if count}


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
