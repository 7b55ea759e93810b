"""Things made before they are wanted: what a machine waits for least is what is there already.

A thing is used once. Who takes one and finds none has one made, and the next is made as soon as one was taken. Making goes on in at most two tasks,
so that it does not take the host from the machines; and as long as more than half of the things wait, making another one waits until who took the
last has had time to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Generic, Self, TypeVar

from firebrick.task import end_tasks, shielded, together

_AT_ONCE: Final = 2
# About as long as a machine takes to start, on a host that is not slow.
_LULL_S: Final = 0.5

T = TypeVar("T")


class Stock(Generic[T]):
    """`async with stock:` keeps `size` things ready; all of them are gone when that ends. `take` may be called by any number of tasks.

    `make` makes one, with all it holds in the stack it is given; `name` is that of the tasks. With `lazily` what was used is removed in the
    background."""

    def __init__(
        self, make: Callable[[AsyncExitStack], Awaitable[T]], *, size: int, name: str, lazily: bool = False
    ) -> None:
        self._make_one = make
        self._size = size
        self._name = name
        self._lazily = lazily
        self._ready: deque[tuple[T, AsyncExitStack]] = deque()
        self._wanted = asyncio.Event()
        self._filled = asyncio.Event()
        self._making = asyncio.Semaphore(_AT_ONCE)
        self._removing = asyncio.Semaphore(_AT_ONCE)
        self._removals: set[asyncio.Task[None]] = set()
        self._fillers: list[asyncio.Task[None]] = []
        self._underway = 0
        self._taken = -_LULL_S
        self._making_took = 0.0
        self._over = False
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._wanted.set()
        self._fillers = [asyncio.create_task(self._fill(), name=f"{self._name}-{n}") for n in range(_AT_ONCE)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await shielded(self._close())

    @property
    def over(self) -> bool:
        """Whether the context is left."""
        return self._over

    @property
    def ready(self) -> int:
        """How many things wait to be taken."""
        return len(self._ready)

    async def full(self) -> None:
        """Wait until as many are ready as shall be. Raises what making one raised, where none can be made."""
        await self._filled.wait()
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def take(self) -> AsyncIterator[T]:
        """One of them, as long as the context. Where none is ready one is made; what that raises is raised."""
        thing, made = await self._take()
        try:
            yield thing
        finally:
            if self._lazily:
                await self._retire(made)
            else:
                await shielded(made.aclose())

    async def _take(self) -> tuple[T, AsyncExitStack]:
        if not self._ready:
            async with self._making:
                taken = await self._make()
        else:
            taken = self._ready.popleft()
        self._taken = time.monotonic()
        if len(self._ready) < self._size:  # else it was filled while this one was made
            self._filled.clear()
        self._wanted.set()
        return taken

    async def _make(self) -> tuple[T, AsyncExitStack]:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            thing = await self._make_one(stack)
            self._making_took = time.monotonic() - began
            return thing, stack.pop_all()

    async def _fill(self) -> None:
        """Make some while they are wanted. A host that cannot is asked again when the next one is taken; who takes it hears why."""
        while True:
            await self._wanted.wait()
            if len(self._ready) + self._underway >= self._size:
                self._wanted.clear()
                continue
            if (lull := self._lull()) > 0:
                await self._pause(lull)
                continue
            self._underway += 1
            try:
                async with self._making:
                    self._ready.append(await self._make())
            except Exception as error:  # noqa: BLE001 - whoever waits has to hear it, whatever it is, and the next one is made all the same
                self._wanted.clear()
                self._failure = error
                self._filled.set()
            finally:
                self._underway -= 1
            if len(self._ready) >= self._size:
                self._failure = None
                self._filled.set()

    def _lull(self) -> float:
        """How many seconds the next one has time. Where making one takes long, so does starting a machine."""
        plenty = 2 * len(self._ready) > self._size
        return self._taken + max(_LULL_S, self._making_took) - time.monotonic() if plenty else 0.0

    async def _pause(self, lull: float) -> None:
        """Until the lull is over, or another one is taken."""
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lull):
                await self._wanted.wait()
        self._wanted.set()

    async def _retire(self, made: AsyncExitStack) -> None:
        task = asyncio.create_task(self._remove(made), name=f"{self._name}-removal")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        if self._over:
            await shielded(together(task))

    async def _remove(self, made: AsyncExitStack) -> None:
        async with self._removing:
            await made.aclose()

    async def _close(self) -> None:
        await end_tasks(*self._fillers)
        self._over = True
        async with AsyncExitStack() as stack:
            stack.push_async_callback(lambda: together(*self._removals))
            while self._ready:
                stack.push_async_callback(self._ready.pop()[1].aclose)
