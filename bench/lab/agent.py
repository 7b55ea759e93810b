"""The floor's end of the agent protocol: as much of it as a first output takes, with the standard library alone.

It knows beforehand all it will say, says it in one piece, and reads nothing of the answers but the first bytes a command wrote. The agent is the
product's: both sides restore the same memory, and so find the same one."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bench.bare_firecracker import Bare

PORT = 1024
_HEADER = struct.Struct("<IIBBH")
_CONTROL, _DATA = 1, 2
_STREAM = 1
_SILENCE_S = 0.2
_DEADLINE_S = 120.0
_AGAIN_S = 0.002


def first_output(machine: Bare, argv: Sequence[str]) -> bytes:
    """Give the machine an identity, run a command in it, and return the first bytes of its output. Raises TimeoutError."""
    until, silence = time.monotonic() + _DEADLINE_S, _SILENCE_S
    while time.monotonic() < until:
        with machine.connect(PORT) as connection:
            connection.sendall(opening(argv))
            # What is sent right after a restore may be lost, and the connection look alive.
            connection.settimeout(silence)
            try:
                for kind, payload in _frames(connection):
                    if kind == _DATA:
                        return payload
                    connection.settimeout(_DEADLINE_S)
            except TimeoutError:
                silence *= 2
            except ConnectionResetError:
                pass
        time.sleep(_AGAIN_S)
    raise TimeoutError(f"{argv[0]} said nothing")


def opening(argv: Sequence[str]) -> bytes:
    """All that is said: who the machine is, and what it shall run."""
    return _identity() + _exec(argv)


def _frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of each frame, until the other end closes."""
    held = b""
    while piece := connection.recv(1 << 16):
        held += piece
        while len(held) >= _HEADER.size:
            length, _, kind, _, _ = _HEADER.unpack_from(held)
            if len(held) < _HEADER.size + length:
                break
            yield kind, held[_HEADER.size : _HEADER.size + length]
            held = held[_HEADER.size + length :]


def _identity() -> bytes:
    return _control(
        0,
        type="identity",
        entropy=os.urandom(256),
        realtime_ns=time.time_ns(),
        hostname="bare",
        machine_id=os.urandom(16).hex(),
    )


def _exec(argv: Sequence[str]) -> bytes:
    options: dict[str, Any] = dict.fromkeys(("cwd", "user", "pty", "timeout_ms"))
    options |= dict.fromkeys(("clear_env", "stdin", "detach", "merge"), False)
    return _control(_STREAM, type="exec", argv=[os.fsencode(word) for word in argv], env={}, **options)


def _control(stream: int, **message: Any) -> bytes:
    payload = _packed(message)
    return _HEADER.pack(len(payload), stream, _CONTROL, 0, 0) + payload


def _packed(value: Any) -> bytes:
    """MessagePack of what the two messages above consist of."""
    match value:
        case None | bool():
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            return struct.pack(">BQ", 0xCF, value)
        case bytes():
            return struct.pack(">BH", 0xC5, len(value)) + value
        case str():
            return struct.pack(">BH", 0xDA, len(value.encode())) + value.encode()
        case list():
            return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(_packed, value))
    pairs = b"".join(_packed(key) + _packed(item) for key, item in value.items())
    return struct.pack(">BH", 0xDE, len(value)) + pairs
