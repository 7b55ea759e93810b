"""What a node and the command line say to each other over the node's socket.

One connection carries one request. Every message is a MessagePack map in a frame of its own, `u32` length first; the key `type` names it.
The request is answered by its result or by `Refused`; an `Execute` in between by `Output`, while the caller may send `Input`, `Resize`, `Signal`.
Only the owner of the home can open the socket, so paths of `Copy` are read and written by the node with the caller's own rights.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from firebrick.node.errors import NodeError

FRAME_LIMIT: Final = 1 << 20
_LENGTH: Final = struct.Struct("<I")


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower, kw_only=True):
    pass


class ListMachines(Message, frozen=True):
    pass


class Execute(Message, frozen=True, kw_only=True):
    """`size` is rows and columns of a terminal, None for no terminal."""

    machine: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    cwd: str | None = None
    user: str | None = None
    size: tuple[int, int] | None = None
    stdin: bool = True


class Console(Message, frozen=True, kw_only=True):
    machine: str


class Stop(Message, frozen=True, kw_only=True):
    """Power off; `grace_s` later, or at once where it is None, end it."""

    machine: str
    grace_s: float | None


class Fork(Message, frozen=True, kw_only=True):
    machine: str


class Copy(Message, frozen=True, kw_only=True):
    """`into` the machine: from `host` to `guest`, else the other way. Both absolute; files and directories."""

    machine: str
    host: str
    guest: str
    into: bool


class Input(Message, frozen=True, kw_only=True):
    """Empty `data` ends the input."""

    data: bytes


class Resize(Message, frozen=True, kw_only=True):
    rows: int
    columns: int


class Signal(Message, frozen=True, kw_only=True):
    number: int


class MachineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`purpose` is what it is for, in words; `age_s` seconds since it started; `node` the process id of its node."""

    id: str
    image: str
    purpose: str
    vcpus: int
    memory_mib: int
    age_s: float
    resident_bytes: int
    cpu_s: float
    node: int


class Machines(Message, frozen=True, kw_only=True):
    machines: tuple[MachineInfo, ...]


class Output(Message, frozen=True, kw_only=True):
    """`stream` is 1 or 2."""

    stream: int
    data: bytes


class Exited(Message, frozen=True, kw_only=True):
    """One of `code` and `signal` is set."""

    code: int | None
    signal: int | None


class Text(Message, frozen=True, kw_only=True):
    text: str


class Forked(Message, frozen=True, kw_only=True):
    machine: str
    milliseconds: float


class Done(Message, frozen=True):
    pass


class Refused(Message, frozen=True, kw_only=True):
    message: str
    hint: str = ""


Request = ListMachines | Execute | Console | Stop | Fork | Copy
FromCaller = Request | Input | Resize | Signal
FromNode = Machines | Output | Exited | Text | Forked | Done | Refused

_FROM_CALLER: Final = msgspec.msgpack.Decoder(FromCaller)
_FROM_NODE: Final = msgspec.msgpack.Decoder(FromNode)
_ENCODER: Final = msgspec.msgpack.Encoder()


async def send(writer: asyncio.StreamWriter, message: FromCaller | FromNode) -> None:
    """Waits while the other end lags behind."""
    data = _ENCODER.encode(message)
    writer.write(_LENGTH.pack(len(data)) + data)
    await writer.drain()


async def receive_from_caller(reader: asyncio.StreamReader) -> FromCaller | None:
    """The next message, None at the end. Raises NodeError for what is no message."""
    frame = await _frame(reader)
    try:
        return None if frame is None else _FROM_CALLER.decode(frame)
    except msgspec.DecodeError as error:
        raise NodeError(f"the caller sent no message of this protocol: {error}") from error


async def receive_from_node(reader: asyncio.StreamReader) -> FromNode | None:
    """The next message, None at the end. Raises NodeError for what is no message."""
    frame = await _frame(reader)
    try:
        return None if frame is None else _FROM_NODE.decode(frame)
    except msgspec.DecodeError as error:
        raise NodeError(
            f"the node sent no message of this protocol: {error}", hint="Are both of one release?"
        ) from error


async def _frame(reader: asyncio.StreamReader) -> bytes | None:
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > FRAME_LIMIT:
            raise NodeError(f"a message of {length} bytes is longer than the limit of {FRAME_LIMIT}")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
