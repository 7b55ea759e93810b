"""Who of a concurrency group runs, who waits and who goes: the whole policy, pure.

free     request        -> the member runs
held     request        -> it waits; of `queue: single` the one that waited before is cancelled, of `max` up to 100 wait in their order
held     request that cancels what is in progress -> whoever runs or waits is cancelled, and it waits until the group is free
any      leave          -> gone; where it ran, the first that waits runs
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_WAITING = 100


@dataclass(frozen=True, slots=True)
class Group:
    """One concurrency group: who runs, and who waits in which order. Members are names, each once."""

    running: str | None = None
    waiting: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.running is None and not self.waiting


@dataclass(frozen=True, slots=True)
class Ruling:
    """The group as it is now, who begins to run (at most one), and whom to cancel. One that ran stays in the group until it leaves; one that waited
    is out of it."""

    group: Group
    started: str | None = None
    cancelled: tuple[str, ...] = ()


def request(group: Group, member: str, *, cancel_in_progress: bool = False, queue: str = "single") -> Ruling:
    """A member, which must not be in the group, asks to run. A full queue cancels whoever comes."""
    if group.running is None:
        return Ruling(replace(group, running=member), started=member)
    if cancel_in_progress:
        return Ruling(replace(group, waiting=(member,)), cancelled=(group.running, *group.waiting))
    if queue == "max":
        if len(group.waiting) >= MAX_WAITING:
            return Ruling(group, cancelled=(member,))
        return Ruling(replace(group, waiting=(*group.waiting, member)))
    return Ruling(replace(group, waiting=(member,)), cancelled=group.waiting)


def leave(group: Group, member: str) -> Ruling:
    """A member ends, or does not want to wait any more. Idempotent."""
    waiting = tuple(one for one in group.waiting if one != member)
    if group.running != member:
        return Ruling(replace(group, waiting=waiting))
    if not waiting:
        return Ruling(Group())
    return Ruling(Group(waiting[0], waiting[1:]), started=waiting[0])
