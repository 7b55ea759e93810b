"""Which waiting builds may start now. Pure: everything it knows is in its arguments.

The order is fair between repositories and, within one, that of arrival: first come the builds of repositories with the fewest builds ahead of
them, running or waiting; so a hundred pushes to one repository do not keep another waiting for its first build. A build that has waited
longer than `PATIENCE_S` goes by age alone, so nothing waits for ever.

The first in this order that does not fit holds back all behind it: otherwise small builds would keep a large one waiting for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What a build takes, or would take, and where it stands. `number` counts up in the order of arrival."""

    number: int
    repository: str
    vcpus: int
    memory_mib: int
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What all running builds may take together."""

    builds: int
    vcpus: int
    memory_mib: int

    def admits(self, demand: Demand) -> bool:
        """Whether a build fits when nothing else runs; if not, it never will."""
        return self.builds >= 1 and demand.vcpus <= self.vcpus and demand.memory_mib <= self.memory_mib

    def without(self, demand: Demand) -> Capacity:
        return Capacity(self.builds - 1, self.vcpus - demand.vcpus, self.memory_mib - demand.memory_mib)


def in_order(waiting: Iterable[Demand], running: Iterable[Demand]) -> list[Demand]:
    """The waiting builds, in the order in which they are to start."""
    ahead = Counter(demand.repository for demand in running)
    ranked: list[tuple[tuple[int, int], Demand]] = []
    for demand in sorted(waiting, key=lambda d: d.number):
        rank = -1 if demand.waited_s > PATIENCE_S else ahead[demand.repository]
        ranked.append(((rank, demand.number), demand))
        ahead[demand.repository] += 1
    return [demand for _, demand in sorted(ranked, key=lambda pair: pair[0])]


def admit(waiting: Sequence[Demand], running: Sequence[Demand], capacity: Capacity) -> list[Demand]:
    """The builds to start now, in this order."""
    free = capacity
    for demand in running:
        free = free.without(demand)
    admitted = []
    for demand in in_order(waiting, running):
        if not free.admits(demand):
            break
        free = free.without(demand)
        admitted.append(demand)
    return admitted
