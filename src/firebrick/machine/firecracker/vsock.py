"""The way from the host to a port of the guest's vsock, through the unix socket Firecracker listens on.

Firecracker's OK says that the guest's kernel was asked, and nothing of the program behind the port: after a restore a connection may be closed after it.
So a connection counts when the guest has sent its first bytes, which the agent does as soon as it has accepted one; until then all is tried anew. And it is
said something at once: a guest that has forgotten a connection says so only when it is spoken to."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from firebrick.guest import message, protocol
from firebrick.guest.stream import ByteStream, open_stream
from firebrick.machine.firecracker.unix import connected

AGENT_PORT: Final = 1024
_MOST_LINE: Final = 32
_OK: Final = re.compile(rb"OK \d{1,10}")
_FIRST: Final = 1 << 16
_KNOCK: Final = protocol.control(0, message.HelloRequest())
_WAIT_FIRST_S: Final = 0.002
_WAIT_MOST_S: Final = 0.1
_PATIENCE_FIRST_S: Final = 0.2
_PATIENCE_MOST_S: Final = 10.0


async def connect(path: Path, port: int, gone: Callable[[], bool]) -> ByteStream:
    """A stream to the guest's `port` that has said something. Tries until it is cancelled, or until `gone` says that there is no use.

    Raises ConnectionRefusedError then."""
    wait, patience = _WAIT_FIRST_S, _PATIENCE_FIRST_S
    while not gone():
        try:
            async with asyncio.timeout(patience):  # what the guest said may be lost, and the connection look alive
                return await _try(path, port)
        except TimeoutError:
            patience = min(patience * 2, _PATIENCE_MOST_S)
        except OSError:
            pass  # nobody listens yet
        await asyncio.sleep(wait)
        wait = min(wait * 2, _WAIT_MOST_S)
    raise ConnectionRefusedError("the machine has ended")


async def _try(path: Path, port: int) -> ByteStream:
    """One call to the port: the socket becomes a stream only when the guest has said something, which most that are tried early never do."""
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(connected(path))
        sock.send(b"CONNECT %d\n" % port)  # a new socket has room for that
        first = await _first(sock)
        undo.pop_all()
    return _Begun(await open_stream(sock), first)


async def _first(sock: socket.socket) -> bytes:
    """The guest's first bytes, which follow Firecracker's line. Raises OSError where there are none."""
    loop, line = asyncio.get_running_loop(), b""
    while b"\n" not in line:
        line += await _received(sock)
        if len(line.partition(b"\n")[0]) >= _MOST_LINE:
            break
    line, _, first = line.partition(b"\n")
    if not _OK.fullmatch(line):
        raise ConnectionRefusedError(f"Firecracker answered {line[:_MOST_LINE]!r}")
    await loop.sock_sendall(sock, _KNOCK)
    return first or await _received(sock)


async def _received(sock: socket.socket) -> bytes:
    if not (piece := await asyncio.get_running_loop().sock_recv(sock, _FIRST)):
        raise ConnectionRefusedError("nobody listens on the guest's port")
    return piece


class _Begun:
    """A stream of which the first bytes have been read."""

    def __init__(self, stream: ByteStream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def read(self, limit: int) -> bytes:
        if self._first:
            piece, self._first = self._first[:limit], self._first[limit:]
            return piece
        return await self._stream.read(limit)

    async def write(self, data: bytes | memoryview) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()
