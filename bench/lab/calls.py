"""What a call costs in the product's client of Firecracker's API, beyond the same bytes through a socket."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.row import Row
from firebrick.machine.firecracker.api import Api

_REQUEST: Final = b"GET /version HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
_BATCHES: Final = 12
_BATCH: Final = 25
_LIMIT_MS: Final = 1.0


async def overhead(name: str, path: Path, *, limit: float | None = 1.0) -> Row:
    """Of the API behind the socket `path`. Batches of both sides take turns; what is compared are the medians of batches."""
    bare, own = [], []
    with _connected(path) as connection, contextlib.closing(connection):
        client = Api(path)
        try:
            for _ in range(_BATCHES + 1):
                bare.append(_median([_bare(connection) for _ in range(_BATCH)]))
                own.append(_median([await _own(client) for _ in range(_BATCH)]))
        finally:
            await client.close()
    differences = [ours - theirs for theirs, ours in zip(bare[1:], own[1:], strict=True)]
    middle = statistics.median(differences)
    return Row(
        name=name,
        unit="ms",
        floor=_LIMIT_MS,
        value=max(middle, 0.0),
        limit=limit,
        spread=(max(differences) - min(differences)) / abs(middle),
    )


def _median(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


def _bare(connection: socket.socket) -> float:
    began = time.perf_counter()
    connection.sendall(_REQUEST)
    data = b""
    while not data.endswith(b"}"):
        piece = connection.recv(1 << 16)
        assert piece, "it closed its API"
        data += piece
    return time.perf_counter() - began


async def _own(client: Api) -> float:
    began = time.perf_counter()
    await client.get("/version")
    return time.perf_counter() - began


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    """By a short name: a socket's path has 108 bytes at most."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/proc/self/fd/{fd}/{path.name}")
        yield connection
    finally:
        os.close(fd)
