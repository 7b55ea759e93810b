"""Ports in a guest that lead elsewhere: to a socket of the host, or a port of another guest.

    async with relay(guest, HostSocket(path), port=8080):
        ...     # what connects to 127.0.0.1:8080 in the guest speaks with what listens on `path`

No guest gets a network by it. A relay carries a bounded number of connections at once, the others wait in the guest; each holds no more on its way than
the credit of its stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from firebrick.guest.client import Listener
from firebrick.guest.errors import BusyError, GuestError
from firebrick.node.guest import Guest
from firebrick.task import alongside, end_tasks, together
from firebrick.unix import short_path

CONNECTIONS: Final = 64
"""Of one relay at once, unless told otherwise."""

_PIECE: Final = 1 << 16
_BUSY_S: Final = 0.1
_LINGER_S: Final = 5.0


class Stream(Protocol):
    """A connection with two directions that end one by one. Raises OSError or GuestError where it is lost."""

    async def read(self, limit: int) -> bytes: ...

    async def write(self, data: bytes | memoryview) -> None: ...

    async def end(self) -> None: ...

    async def settle(self) -> None:
        """After `end`: wait until what was written has arrived, or cannot any more. `close` may lose it before."""

    async def close(self) -> None:
        """Give it up, in both directions. Idempotent."""


class Target(Protocol):
    """Where the connections of a relay go."""

    def open(self) -> AbstractAsyncContextManager[Stream]:
        """A new connection; raises OSError or GuestError where there is none to be had."""


@dataclass(frozen=True, slots=True)
class HostSocket:
    """A unix stream socket of the host."""

    path: Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        with short_path(self.path.parent) as near:
            reader, writer = await asyncio.open_unix_connection(f"{near}/{self.path.name}")
        writer.transport.set_write_buffer_limits(0)  # what `drain` returns after has gone
        pair = _Pair(reader, writer)
        try:
            yield pair
        finally:
            await pair.close()


@dataclass(frozen=True, slots=True)
class GuestPort:
    """A TCP port in a guest."""

    guest: Guest
    port: int
    host: str = "127.0.0.1"

    def open(self) -> AbstractAsyncContextManager[Stream]:
        return self.guest.connect_port(self.port, self.host)


@dataclass(frozen=True, slots=True)
class _Pair:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, limit: int) -> bytes:
        return await self.reader.read(limit)

    async def write(self, data: bytes | memoryview) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write_eof()

    async def settle(self) -> None:
        """Nothing to wait for: `write` has."""

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def relay(
    guest: Guest, target: Target, *, port: int = 0, address: str = "127.0.0.1", limit: int = CONNECTIONS
) -> AsyncIterator[int]:
    """Join a port on the loopback of `guest` to `target` while the context lasts; the value is the port, which is new where `port` is 0. At most
    `limit` connections are open at once. A connection for which the target cannot be had is closed. The end of the context closes them all.

    Raises what `Agent.listen` raises. A guest that is lost ends the relay without a word here: who uses it is told."""
    async with (
        guest.listen(port, address) as listener,
        alongside(_serve(listener, target, limit), name=f"relay-{address}:{listener.port}"),
    ):
        assert listener.port is not None
        yield listener.port


async def _serve(listener: Listener, target: Target, limit: int) -> None:
    permits = asyncio.Semaphore(limit)
    try:
        async with asyncio.TaskGroup() as group:
            while True:
                await permits.acquire()
                connection = await _next(listener)
                group.create_task(_join(connection, target, permits), name="relay-connection")
    except* GuestError:
        pass


async def _next(listener: Listener) -> Stream:
    while True:
        try:
            return await anext(listener)
        except BusyError:  # all streams of the guest are in use
            await asyncio.sleep(_BUSY_S)


async def _join(connection: Stream, target: Target, permits: asyncio.Semaphore) -> None:
    try:
        async with target.open() as other:
            await _bridge(connection, other)
    except (OSError, GuestError):
        pass  # either end is lost, and so the connection is closed
    finally:
        permits.release()
        await connection.close()


class _Way:
    """One direction. `deaf`: nobody reads any more where it leads, and what still comes is thrown away; what comes back still counts."""

    def __init__(self, source: Stream, sink: Stream) -> None:
        self._source = source
        self._sink = sink
        self.deaf = False

    async def run(self) -> None:
        while piece := await self._source.read(_PIECE):
            await self._pass_on(piece)
        with contextlib.suppress(OSError):
            await self._sink.end()

    async def _pass_on(self, piece: bytes) -> None:
        if self.deaf:
            return
        try:
            await self._sink.write(piece)
        except OSError:
            self.deaf = True


async def _bridge(one: Stream, other: Stream) -> None:
    """Carry both ways until both have ended, and what was said has arrived. Where one end reads no more, the other has a moment to hear the rest."""
    ways = (_Way(one, other), _Way(other, one))
    running = {asyncio.create_task(way.run(), name="relay-way"): way for way in ways}
    try:
        pending = set(running)
        while any(not running[task].deaf for task in pending):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S if pending else None):
                await together(one.settle(), other.settle())
    finally:
        await end_tasks(*running)
