"""uvicorn as a part of a program rather than as the program, and with a bound on what those who connect may hold.

Who connects may be slow in every direction, on purpose too. What each connection owes is looked at once a second:

    nothing has been asked, or half a request    its head is whole within `head_s`; an answered connection is idle for `idle_s` (uvicorn does that)
    a request's body, while somebody reads it    `body_rate` bytes a second, over `stall_s`
    an answer it does not read                   some of it goes out every `stall_s`
    the end of a connection that is closed       within `stall_s`

Who owes more is cut off. Of more connections than `connections`, one that is idle makes room, or the one whose request is awaited longest; where
all have work under way, new ones are told so, and beyond a few more not even that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_TOLD: Final = 64
"""Connections beyond the most that are told there are too many."""
_TICKS: Final = 10
"""uvicorn's ticks in a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What connections may take: a number of them, seconds, bytes a second."""

    connections: int = 512
    head_s: float = 30.0
    idle_s: int = 75
    stall_s: float = 60.0
    body_rate: int = 1024


def web_config(app: Callable[..., Any], bounds: Bounds, *, goodbye_s: int | None = None) -> uvicorn.Config:
    """HTTP and nothing else, within the bounds; what is under way when the server ends has `goodbye_s`."""
    return uvicorn.Config(
        app,
        http=type("BoundedConnection", (Connection,), {"bounds": bounds}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=bounds.connections + 1,
        timeout_keep_alive=bounds.idle_s,
        timeout_graceful_shutdown=goodbye_s,
    )


class Connection(H11Protocol):
    """One connection, and since when it owes what: None where it does not."""

    bounds: ClassVar[Bounds] = Bounds()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._body_bytes = 0
        self._unread_since: float | None = None
        self._closing_since: float | None = None

    # --- what asyncio and uvicorn call ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self.bounds.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        self._body_bytes += len(data)
        super().data_received(data)
        if not self._asks:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None

    # --- what is owed ---

    def check(self, now: float) -> None:
        """Cut the connection off if it owes too much."""
        self._note(now)
        stall_s = self.bounds.stall_s
        if (
            _over(self._head_since, self.bounds.head_s, now)
            or _over(self._unread_since, stall_s, now)
            or _over(self._closing_since, stall_s, now)
            or self._starves(now)
        ):
            self.transport.abort()

    def _starves(self, now: float) -> bool:
        """Whether too little of a body has come, asked whenever there was time enough for that."""
        if not _over(self._body_since, self.bounds.stall_s, now):
            return False
        self._body_since = None
        return self._body_bytes < self.bounds.stall_s * self.bounds.body_rate

    def _note(self, now: float) -> None:
        if self.transport.is_closing() and self._closing_since is None:
            self._closing_since = now
        if not self._owes_body:
            self._body_since = None
        elif self._body_since is None:
            self._body_since, self._body_bytes = now, 0

    @property
    def _asks(self) -> bool:
        """Whether a request is awaited: its head is not whole yet."""
        return self.conn.their_state is h11.IDLE

    @property
    def _owes_body(self) -> bool:
        """Whether more of a request's body is awaited, by somebody who reads it."""
        if self.conn.their_state is not h11.SEND_BODY or self.flow.read_paused:
            return False
        return not self.cycle.waiting_for_100_continue

    @property
    def waited_for(self) -> float | None:
        """Since when its first request or the rest of one has been awaited, 0 where it has been answered and is idle; None where something
        is under way."""
        if not self._asks or self.transport.is_closing():
            return None
        return self._head_since if self._head_since is not None else 0.0

    def _make_room(self) -> None:
        others = (one for one in self.connections if isinstance(one, Connection) and one is not self)
        waited_for = [(since, one) for one in others if (since := one.waited_for) is not None]
        if waited_for:
            min(waited_for, key=lambda pair: pair[0])[1].transport.abort()
        elif len(self.connections) > self.bounds.connections + _TOLD:
            self.transport.abort()


def _over(since: float | None, limit_s: float, now: float) -> bool:
    return since is not None and now - since >= limit_s


class WebServer(uvicorn.Server):
    """uvicorn, which leaves the signals to us, says when it listens, and looks after its connections."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there, a context manager all the same
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._bounded():
                connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in self._bounded():
            connection.transport.abort()

    def _bounded(self) -> list[Connection]:
        return [one for one in self.server_state.connections if isinstance(one, Connection)]
