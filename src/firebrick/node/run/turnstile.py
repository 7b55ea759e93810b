"""The concurrency groups of one node: what `firebrick.workflow.admission` rules, carried out among the runs and jobs of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from firebrick.task import race
from firebrick.workflow.admission import Group, Ruling, leave, request
from firebrick.workflow.expression.value import fold
from firebrick.workflow.policy import GroupRequest


@dataclass(slots=True)
class _Ticket:
    cancel: Callable[[], None]
    started: asyncio.Event = field(default_factory=asyncio.Event)


def group_key(repository: str, name: str) -> str:
    """What tells groups apart: they are of a repository, and known without case."""
    return f"{fold(repository)}\0{fold(name)}"


class Turnstile:
    """Groups with nobody in them are forgotten."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._tickets: dict[str, _Ticket] = {}

    @asynccontextmanager
    async def pass_through(
        self, key: str, asked: GroupRequest, member: str, *, cancel: Callable[[], None], cancelled: asyncio.Event
    ) -> AsyncIterator[bool]:
        """Wait until `member` (a name used once) may run in the group `key`, and be of the group while the context lasts.

        `cancel` is called, at any time, where another took its place: whoever runs must then end. False where `cancelled` was set before
        its turn came: it must not run."""
        ticket = self._tickets[member] = _Ticket(cancel)
        self._carry_out(
            key,
            request(
                self._groups.get(key, Group()),
                member,
                cancel_in_progress=asked.cancel_in_progress,
                queue=asked.queue,
            ),
        )
        try:
            await race(ticket.started.wait(), cancelled.wait(), name=f"turnstile-{member}")
            yield ticket.started.is_set() and not cancelled.is_set()
        finally:
            del self._tickets[member]
            self._carry_out(key, leave(self._groups.get(key, Group()), member))

    @property
    def is_empty(self) -> bool:
        return not self._groups and not self._tickets

    def is_free(self, key: str) -> bool:
        """Whether whoever asks now runs at once."""
        return key not in self._groups

    def _carry_out(self, key: str, ruling: Ruling) -> None:
        self._groups[key] = ruling.group
        if ruling.group.is_empty:
            del self._groups[key]
        if ruling.started is not None:
            self._tickets[ruling.started].started.set()
        for member in ruling.cancelled:
            self._tickets[member].cancel()
