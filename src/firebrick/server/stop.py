"""Asking an attempt to end, with a cause."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from firebrick.node.event import CancelCause
from firebrick.task import race

T = TypeVar("T")


class StoppedError(Exception):
    """The work was given up, because somebody asked for it."""

    def __init__(self, cause: CancelCause) -> None:
        super().__init__(cause.value)
        self.cause = cause


class Stop:
    """The wish that an attempt ends. Once there it stays; the first cause counts, but a shutdown, which does not wait, goes before all."""

    def __init__(self) -> None:
        self._asked: dict[CancelCause, asyncio.Event] = {cause: asyncio.Event() for cause in CancelCause}
        self._any = asyncio.Event()
        self.cause: CancelCause | None = None

    def ask(self, cause: CancelCause) -> None:
        self.cause = self.cause or cause
        self._asked[cause].set()
        self._any.set()

    async def asked(self, cause: CancelCause | None = None) -> CancelCause:
        """Wait until somebody asks, for this cause or any."""
        await (self._any if cause is None else self._asked[cause]).wait()
        assert self.cause is not None
        return cause or self.cause

    async def bound(self, work: Coroutine[Any, Any, T], cause: CancelCause | None = None) -> T:
        """Do the work; when somebody asks meanwhile (for this cause, or any) cancel it, wait until it has cleaned up, and raise StoppedError."""
        return await race(work, self._stopped(cause), name="attempt")

    async def _stopped(self, cause: CancelCause | None) -> NoReturn:
        raise StoppedError(await self.asked(cause))
