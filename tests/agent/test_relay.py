"""Ports in the guest that lead to a socket of the host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firebrick.node.relay import HostSocket, relay
from firebrick.unix import listen_unix
from tests.agent.conftest import Guest
from tests.agent.test_connection import _upper
from tests.agent.test_listen import PATIENCE_S, dialled, read_all


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[None]:
    with listen_unix(path) as door:
        async with await asyncio.start_unix_server(_upper, sock=door):
            yield


async def test_a_socket_of_the_host_answers_in_the_guest(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / ("a home may have a long name, a socket may not" * 3) / "s"
    path.parent.mkdir()
    data = bytes(range(97, 123)) * 40_000
    async with (
        asyncio.timeout(PATIENCE_S),
        guest.connect() as agent,
        listening(path),
        relay(agent, HostSocket(path), address="127.1.0.3") as port,
        dialled(guest, port, "127.1.0.3") as client,
    ):
        async with asyncio.TaskGroup() as both:
            reading = both.create_task(read_all(client))
            await client.write(data)
            await client.end()
        assert reading.result() == data.upper()


async def test_where_nobody_answers_the_connection_is_closed(guest: Guest, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        guest.connect() as agent,
        relay(agent, HostSocket(tmp_path / "none")) as port,
        dialled(guest, port) as client,
    ):
        with contextlib.suppress(ConnectionResetError):
            assert await client.read(1) == b""
        assert await agent.ping() >= 0
