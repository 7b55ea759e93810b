"""Which of the kept machines go when they are too many, or too large together. Pure.

Nobody loses one to somebody who has more: it goes from the repository that has most; of its runs, from the one that has most beside another one of
its own, checkpoints before machines that failed; and where each of its runs has one, the oldest. So what a job marks for itself pushes out what its own
run has kept, then what its own repository has, and nothing of others as long as they have less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Costs(Protocol):
    """What counts of a record, see `firebrick.node.kept.shelf.Kept`."""

    @property
    def tenant(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def bytes(self) -> int: ...
    @property
    def is_checkpoint(self) -> bool: ...


C = TypeVar("C", bound=Costs)
Measure = Callable[[Costs], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much is kept at once, however young it is."""

    mib: int
    count: int


def beyond(records: Sequence[C], quota: Quota) -> list[C]:
    """Those that have to go so that the others are within the quota, in the order they go."""
    left = sorted(records, key=lambda record: record.at)
    gone: list[C] = []
    for measure, most in ((_one, quota.count), (_bytes, quota.mib << 20)):
        while sum(map(measure, left)) > most:
            gone.append(_next(left, measure))
            left.remove(gone[-1])
    return gone


def _one(_: Costs) -> int:
    return 1


def _bytes(record: Costs) -> int:
    return record.bytes


def _next(records: Sequence[C], measure: Measure) -> C:
    """`records` are the oldest first, and so is what goes of those that are alike."""
    own = _largest(_by(records, lambda record: record.tenant), measure)
    runs = {run: of for run, of in _by(own, lambda record: record.run).items() if len(of) > 1}
    if not runs:
        return own[0]
    of_run = _largest(runs, measure)
    return next((record for record in of_run if record.is_checkpoint), of_run[0])


def _by(records: Iterable[C], key: Callable[[C], str]) -> dict[str, list[C]]:
    found: defaultdict[str, list[C]] = defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return found


def _largest(groups: Mapping[str, list[C]], measure: Measure) -> list[C]:
    """Of several that are as large, the one that began first: what is new is not the first to go."""
    return max(groups.values(), key=lambda group: sum(map(measure, group)))
