"""The way from the host to a port of the guest's vsock, through the unix socket Firecracker listens on.

Firecracker's OK says that the guest's kernel was asked, and nothing of the program behind the port: after a restore a connection may be closed after it.
So a connection counts when the guest has sent its first bytes, which the agent does as soon as it has accepted one; until then all is tried anew."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from firebrick.guest.stream import ByteStream, open_stream
from firebrick.machine.firecracker.unix import connected

AGENT_PORT: Final = 1024
_MOST_LINE: Final = 32
_OK: Final = re.compile(rb"OK \d{1,10}\n")
_FIRST: Final = 1 << 16
_WAIT_FIRST_S: Final = 0.002
_WAIT_MOST_S: Final = 0.1
_PATIENCE_FIRST_S: Final = 0.2
_PATIENCE_MOST_S: Final = 10.0


async def connect(socket: Path, port: int, gone: Callable[[], bool]) -> ByteStream:
    """A stream to the guest's `port` that has said something. Tries until it is cancelled, or until `gone` says that there is no use.

    Raises ConnectionRefusedError then."""
    wait, patience = _WAIT_FIRST_S, _PATIENCE_FIRST_S
    while not gone():
        try:
            async with asyncio.timeout(patience):  # what the guest said may be lost, and the connection look alive
                return await _try(socket, port)
        except TimeoutError:
            patience = min(patience * 2, _PATIENCE_MOST_S)
        except OSError:
            pass  # nobody listens yet
        await asyncio.sleep(wait)
        wait = min(wait * 2, _WAIT_MOST_S)
    raise ConnectionRefusedError("the machine has ended")


async def _try(socket: Path, port: int) -> ByteStream:
    stream = await open_stream(connected(socket))
    try:
        await stream.write(b"CONNECT %d\n" % port)
        await _expect_ok(stream)
        return _Begun(stream, await _first(stream))
    except BaseException:
        await stream.close()
        raise


async def _first(stream: ByteStream) -> bytes:
    if not (first := await stream.read(_FIRST)):
        raise ConnectionResetError("the guest closed the connection before it said anything")
    return first


async def _expect_ok(stream: ByteStream) -> None:
    line = b""
    while not line.endswith(b"\n"):
        byte = await stream.read(1)  # what follows the line is the guest's
        if not byte or len(line) >= _MOST_LINE:
            raise ConnectionRefusedError("nobody listens on the guest's port")
        line += byte
    if not _OK.fullmatch(line):
        raise ConnectionRefusedError(f"Firecracker answered {line!r}")


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
