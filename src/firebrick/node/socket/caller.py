"""The caller's end: which nodes run on this home, which has a machine, and what it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firebrick.node.errors import NodeError, NoNodeError
from firebrick.node.socket import wire
from firebrick.unix import short_path


class Call:
    """One connection to a node. Made by `call`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, message: wire.FromCaller) -> None:
        with contextlib.suppress(ConnectionError):  # the node's last word, if there is one, says more
            await wire.send(self._writer, message)

    async def receive(self) -> wire.FromNode:
        """The next message of the node. Raises NodeError, with the node's own words where it refuses."""
        answer = await wire.receive_from_node(self._reader)
        if answer is None:
            raise NodeError("the node has ended", hint="What ran on it ended with it.")
        if isinstance(answer, wire.Refused):
            raise NodeError(answer.message, hint=answer.hint)
        return answer


@asynccontextmanager
async def call(socket: Path) -> AsyncIterator[Call]:
    """A connection to the node behind `socket`. Raises OSError where nobody listens."""
    with short_path(socket.parent) as near:
        reader, writer = await asyncio.open_unix_connection(f"{near}/{socket.name}")
    try:
        yield Call(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(socket: Path, request: wire.Request) -> wire.FromNode:
    """One request that has one answer. Raises NodeError, OSError."""
    async with call(socket) as connection:
        await connection.send(request)
        return await connection.receive()


async def list_machines(nodes: Path) -> list[tuple[Path, wire.MachineInfo]]:
    """The machines of every node that listens in the directory `nodes`, with its socket. Sockets of nodes that are gone are removed."""
    found: list[tuple[Path, wire.MachineInfo]] = []
    for socket in sorted(nodes.glob("*.sock")):
        try:
            answer = await ask(socket, wire.ListMachines())
        except (ConnectionRefusedError, FileNotFoundError):
            socket.unlink(missing_ok=True)
            continue
        except (NodeError, OSError):
            continue  # it is ending just now
        assert isinstance(answer, wire.Machines)
        found += [(socket, machine) for machine in answer.machines]
    return found


async def find_machine(nodes: Path, name: str) -> tuple[Path, str]:
    """The socket and full id of the machine `name`, which may be the beginning of its id. Raises NoNodeError."""
    machines = await list_machines(nodes)
    matching = [(socket, machine.id) for socket, machine in machines if machine.id.startswith(name)]
    exact = [entry for entry in matching if entry[1] == name]
    if len(exact or matching) == 1:
        return (exact or matching)[0]
    if matching:
        raise NoNodeError(f"several machines begin with {name!r}", hint="Give more of the id: `firebrick vm ls`.")
    hint = (
        "`firebrick vm ls` lists them."
        if machines
        else "Machines live while `firebrick run` or `firebrick serve` does."
    )
    raise NoNodeError(f"no machine {name!r} is running", hint=hint)
