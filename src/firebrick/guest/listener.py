"""Ports in the guest whose connections come to the host.

    async with agent.listen(8080) as listener:
        async for connection in listener:
            ...

The guest takes a connection in when it is asked for one, and not before: who does not ask leaves the others waiting in the guest, where
their number is bounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from firebrick.guest import message, protocol
from firebrick.guest.connection import Connection
from firebrick.guest.errors import GuestError, UnsupportedError
from firebrick.guest.exchange import Stream
from firebrick.guest.tunnel import Tunnel


class Listener:
    """Made by `listening`: an asynchronous iterator of connections, for one reader. Each is the reader's to close; what is open when the listener
    ends is given up.

    `port` is where it listens, None for a unix socket."""

    def __init__(self, connection: Connection, number: int, port: int | None) -> None:
        self._connection = connection
        self._number = number
        self.port = port
        self._asked: Stream | None = None
        self._open: list[Tunnel] = []

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Tunnel:
        """The next connection; waits for one as long as it takes. After a cancelled call the next one has it. Raises ChannelError when the
        connection to the guest is lost, BusyError when the guest has too much open."""
        if self._asked is None:
            self._asked = await self._connection.open(message.Accept(listener=self._number))
        asked = self._asked
        try:
            await asked.first()
        except GuestError:
            self._asked = None
            raise
        self._asked = None
        tunnel = Tunnel(asked)
        self._open = [earlier for earlier in self._open if not earlier.ended]
        self._open.append(tunnel)
        return tunnel

    async def close(self) -> None:
        """Give up what is open."""
        if self._asked is not None:
            self._asked.give_up()
        for tunnel in self._open:
            await tunnel.close()


@contextlib.asynccontextmanager
async def listening(connection: Connection, request: message.Listen) -> AsyncIterator[Listener]:
    """A listener as long as the context lasts. Raises UnsupportedError for an agent that cannot, AgentError where it may not."""
    if not connection.offers(protocol.LISTEN):
        raise UnsupportedError(
            "cannot listen in the guest: its agent is of an earlier release",
            code="unsupported",
            hint="Make the template anew with the agent of this release.",
        )
    async with connection.stream(request) as stream:
        first = await stream.first()
        assert isinstance(first, message.Listening)
        listener = Listener(connection, stream.id, first.port)
        try:
            yield listener
        finally:
            await listener.close()
