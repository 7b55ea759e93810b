"""The time of day, as what happens by the clock asks for it; tests have one of their own."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A clock that is set, and a host that slept, are noticed after so long.
_LONGEST_S: Final = 30.0


class Clock(Protocol):
    """`now` knows its zone. `wait` returns when `until` has come, when `news` is set, or earlier."""

    def now(self) -> datetime: ...

    async def wait(self, until: datetime | None, news: asyncio.Event) -> None: ...


class SystemClock:
    """That of this host."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def wait(self, until: datetime | None, news: asyncio.Event) -> None:
        left = _LONGEST_S if until is None else min(_LONGEST_S, max(0.0, (until - self.now()).total_seconds()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), left)


def now_us() -> int:
    """Now, in microseconds since 1970: the same in every database, and no time zone to lose."""
    return to_us(datetime.now(UTC))


def to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
