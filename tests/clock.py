"""A clock that goes on when a test says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class HandClock:
    """A `firebrick.server.clock.Clock`. `asked` counts how often somebody has begun to wait."""

    def __init__(self, *start: int) -> None:
        self._now = datetime(*(start or (2026, 1, 1)), tzinfo=UTC)  # type: ignore[arg-type]
        self._moved = asyncio.Event()
        self.asked = 0

    def now(self) -> datetime:
        return self._now

    async def wait(self, until: datetime | None, news: asyncio.Event) -> None:
        self.asked += 1
        waits = [asyncio.ensure_future(self._moved.wait()), asyncio.ensure_future(news.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    def go_on(self, **amount: float) -> None:
        """Let so much time pass; whoever waits looks at it."""
        self._now += timedelta(**amount)
        self._moved.set()
        self._moved = asyncio.Event()
