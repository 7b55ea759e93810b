"""The node's end of its socket: one connection, one request. Only the owner of the home can knock."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from firebrick.errors import FirebrickError
from firebrick.guest.client import Process, PtySize
from firebrick.guest.errors import AgentError, GuestError, StreamClosedError
from firebrick.machine.errors import MachineError
from firebrick.machine.machine import Machine
from firebrick.node.errors import NodeError
from firebrick.node.socket import wire
from firebrick.node.socket.roster import Roster
from firebrick.task import end_tasks, race, shielded
from firebrick.unix import new_name, short_path

_ERRORS: Final = (NodeError, MachineError, GuestError, OSError)
_PIECE: Final = 1 << 18


@asynccontextmanager
async def open_door(directory: Path, roster: Roster) -> AsyncIterator[Path]:
    """Listen on `<directory>/<pid>-<number>.sock` while the context lasts. Connections that are open at the end are closed."""
    path = new_name(directory)
    door = _Door(roster)
    with short_path(directory) as near:
        server = await asyncio.start_unix_server(door.receive, f"{near}/{path.name}")
    path.chmod(0o600)
    try:
        yield path
    finally:
        await shielded(_close(server, door, path))


async def _close(server: asyncio.Server, door: _Door, path: Path) -> None:
    path.unlink(missing_ok=True)
    server.close()
    await door.close()
    await server.wait_closed()


class _Door:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._visits: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await end_tasks(*self._visits)

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One visit, from the request to the answer. What goes wrong is told, never raised: nobody is there to catch it."""
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        try:
            with contextlib.suppress(ConnectionError):
                await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass  # the node ends; asyncio would report the task as failed
        finally:
            self._visits.discard(visit)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await wire.receive_from_caller(reader)
            if isinstance(request, wire.Execute):
                await self._execute(request, reader, writer)
            elif isinstance(request, wire.Fork):
                await self._fork(request, reader, writer)
            elif request is not None:
                await wire.send(writer, await self._result(request))
        except _ERRORS as error:
            hint = error.hint if isinstance(error, FirebrickError) else ""
            await wire.send(writer, wire.Refused(message=str(error), hint=hint))

    async def _result(self, request: wire.FromCaller) -> wire.FromNode:
        match request:
            case wire.ListMachines():
                return wire.Machines(machines=self._roster.list())
            case wire.Console(machine=name):
                return wire.Text(text=self._roster.find(name).machine.console())
            case wire.Stop(machine=name, grace_s=grace):
                machine = self._roster.find(name).machine
                await (machine.kill() if grace is None else machine.stop(grace))
                return wire.Done()
            case wire.Copy():
                await _copy(self._roster.find(request.machine).machine, request)
                return wire.Done()
            case _:
                raise NodeError(f"{type(request).__name__} is not a request")

    async def _fork(self, request: wire.Fork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A caller who does not wait for the answer knows no id to stop the copy by: there shall be none then."""
        fork = await race(self._roster.fork(request.machine), reader.read(1), name=f"door-fork-{request.machine}")
        if not isinstance(fork, bytes):
            machine, milliseconds = fork
            await wire.send(writer, wire.Forked(machine=machine, milliseconds=milliseconds))

    async def _execute(self, request: wire.Execute, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = self._roster.find(request.machine).machine
        size = None if request.size is None else PtySize(rows=request.size[0], cols=request.size[1])
        async with machine.exec(
            request.argv,
            env=dict(request.env),
            cwd=request.cwd,
            user=request.user,
            pty=size,
            stdin=request.stdin,
        ) as process:
            # The end of the feed is the end of the caller: the context then ends what it started.
            exited = await race(_listen(process, writer), _feed(reader, process), name=f"door-{machine.id}")
        if exited is not None:
            await wire.send(writer, exited)


async def _feed(reader: asyncio.StreamReader, process: Process) -> None:
    """What the caller sends while the command runs; ends when the caller is gone."""
    while (message := await wire.receive_from_caller(reader)) is not None:
        with contextlib.suppress(StreamClosedError):
            match message:
                case wire.Input(data=b""):
                    await process.close_stdin()
                case wire.Input(data=data):
                    await process.write(data)
                case wire.Resize(rows=rows, columns=columns):
                    await process.resize(PtySize(rows=rows, cols=columns))
                case wire.Signal(number=number):
                    await process.signal(number)
                case _:
                    raise NodeError(f"{type(message).__name__} has no meaning while a command runs")


async def _listen(process: Process, writer: asyncio.StreamWriter) -> wire.Exited:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_forward(process, 1, writer), name="door-stdout")
            group.create_task(_forward(process, 2, writer), name="door-stderr")
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    status = await process.wait()
    return wire.Exited(code=status.code, signal=status.signal)


async def _forward(process: Process, stream: int, writer: asyncio.StreamWriter) -> None:
    async for chunk in process.stdout if stream == 1 else process.stderr:
        for at in range(0, len(chunk), _PIECE):
            await wire.send(writer, wire.Output(stream=stream, data=chunk[at : at + _PIECE]))


async def _copy(machine: Machine, request: wire.Copy) -> None:
    host = Path(request.host)
    if not request.into:
        await machine.download(request.guest, host)
    elif host.is_dir():
        await machine.upload(host, request.guest, uid=0, gid=0)
    else:
        target = await _target(machine, request.guest, host.name)
        await machine.files.write(target, _pieces(host), mode=host.stat().st_mode & 0o777)


async def _target(machine: Machine, guest: str, name: str) -> str:
    """As with cp: a file copied to a directory goes into it."""
    try:
        entry = await machine.files.stat(guest)
    except AgentError:
        return guest
    return posixpath.join(guest, name) if entry.kind == "directory" else guest


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
