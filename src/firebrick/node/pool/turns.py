"""How many machines a node carries at once, and who waits for room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """`capacity` turns. Who asks for several gets them together, first come first served: nobody holds some and waits for others who do the same."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = asyncio.Semaphore(capacity)
        self._first = asyncio.Lock()

    def must_wait(self) -> bool:
        """Whether whoever asks now is kept waiting."""
        return self._first.locked() or self._free.locked()

    @asynccontextmanager
    async def take(self, count: int = 1) -> AsyncIterator[None]:
        """So many turns, while the context lasts; all there are where more are asked for."""
        taken = 0
        try:
            async with self._first:
                for _ in range(min(count, self._capacity)):
                    await self._free.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._free.release()
