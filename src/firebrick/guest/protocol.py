"""Frames of the agent protocol, version 1: the twin of agent/src/protocol.rs. docs/reference/agent-protocol.md is the contract of both.

Pure: bytes in, frames out. Whatever the other end sends, the only error is ProtocolError, and no more than one frame is ever held.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from enum import IntEnum
from types import UnionType
from typing import Generic, NamedTuple, TypeVar

import msgspec

from firebrick.guest import message
from firebrick.guest.errors import MessageTooLargeError, ProtocolError

VERSION = 1
MINIMUM_VERSION = 1

LISTEN = "listen"
"""The feature of an agent that knows `listen` and `accept`."""
PREPARE = "prepare"
"""The feature of an agent that knows `before` and `listing` of an exec."""

SEED = "seed"
"""The feature of an agent that knows `seed`."""

MAX_PAYLOAD = 262144
MAX_CONTROL = 65536
INITIAL_CREDIT = 262144
MAX_CREDIT = (1 << 31) - 1
"""The most credit a sender may ever hold for one channel."""

MIN_ENTROPY = 32
MAX_ENTROPY = 512
_HUNG_UP = 0xFFFFFFFF  # in each field: what an agent says that cannot close its port

HEADER = struct.Struct("<IIBBH")
_CREDIT = struct.Struct("<I")


class Kind(IntEnum):
    CONTROL = 1
    DATA = 2
    CREDIT = 3
    EOF = 4
    RESET = 5


class Channel(IntEnum):
    INPUT = 0
    OUTPUT = 1
    ERROR = 2


class Frame(NamedTuple):
    """One frame. `payload` is a copy of its own, never a view into a receive buffer."""

    stream: int
    kind: int
    channel: int
    payload: bytes


def control(stream: int, record: message.Message) -> bytes:
    """A control frame. Raises MessageTooLargeError for what no frame holds: a command line of 70 KiB, say."""
    payload = message.pack(record)
    if len(payload) > MAX_CONTROL:
        raise MessageTooLargeError(
            f"cannot send a message of {len(payload)} bytes: {type(record).__name__.lower()} may take {MAX_CONTROL}",
            hint="Put long arguments or environment into a file.",
        )
    return HEADER.pack(len(payload), stream, Kind.CONTROL, 0, 0) + payload


def data(stream: int, channel: int, payload: bytes | memoryview) -> bytes:
    return b"".join((HEADER.pack(len(payload), stream, Kind.DATA, channel, 0), payload))


def credit(stream: int, channel: int, amount: int) -> bytes:
    return HEADER.pack(4, stream, Kind.CREDIT, channel, 0) + _CREDIT.pack(amount)


def eof(stream: int, channel: int) -> bytes:
    return HEADER.pack(0, stream, Kind.EOF, channel, 0)


def reset(stream: int) -> bytes:
    return HEADER.pack(0, stream, Kind.RESET, 0, 0)


def credit_amount(frame: Frame) -> int:
    """What a credit frame grants."""
    (amount,) = _CREDIT.unpack(frame.payload)
    return int(amount)


_M = TypeVar("_M")


class Messages(Generic[_M]):
    """Decodes the control payloads of one direction and place; any other type of message is an error there."""

    def __init__(self, union: UnionType, place: str) -> None:
        self._decode: Callable[[bytes], _M] = msgspec.msgpack.Decoder(union).decode
        self._place = place

    def decode(self, payload: bytes) -> _M:
        try:
            return self._decode(payload)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
            raise ProtocolError(f"cannot understand a control message {self._place}: {e}") from e


def _check(length: int, stream: int, kind: int, channel: int, reserved: int) -> None:
    """Raises ProtocolError for a header no correct peer sends. Called before a byte of the payload is waited for."""
    if length == stream == _HUNG_UP:
        raise ProtocolError("the agent has hung up: it was sent what it does not take, and its console says what")
    if length > MAX_PAYLOAD:
        raise ProtocolError(f"a frame says it has {length} bytes, more than {MAX_PAYLOAD}")
    if reserved:
        raise ProtocolError(f"the reserved bytes of a frame are {reserved:#x}, not zero")
    match kind:
        case Kind.DATA:
            right = stream > 0 and channel <= Channel.ERROR
        case Kind.CONTROL:
            right = 0 < length <= MAX_CONTROL and channel == 0
        case Kind.CREDIT:
            right = length == _CREDIT.size and stream > 0 and channel <= Channel.ERROR
        case Kind.EOF:
            right = length == 0 and stream > 0 and channel <= Channel.ERROR
        case Kind.RESET:
            right = length == 0 and stream > 0 and channel == 0
        case _:
            raise ProtocolError(f"a frame is of the unknown kind {kind}")
    if not right:
        name = Kind(kind).name.lower()
        raise ProtocolError(f"a {name} frame of {length} bytes for stream {stream}, channel {channel} makes no sense")


class FrameDecoder:
    """Cuts a byte stream into frames. Feed it what was read, in pieces of any size.

    Holds at most one incomplete frame and what was read with it. After a ProtocolError it is of no further use.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = HEADER.size

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that `piece` completes. The iterator must be run to its end before the next call."""
        source: bytes | bytearray = piece
        if self._held:
            # Appending is cheap; looking at a frame again for every byte of it that trickles in would not be.
            self._held += piece
            if len(self._held) < self._wanted:
                return
            source = self._held
        at = yield from self._cut(source)
        self._held = bytearray(memoryview(source)[at:])

    def _cut(self, source: bytes | bytearray) -> Generator[Frame, None, int]:
        view, size, at = memoryview(source), len(source), 0
        while size - at >= HEADER.size:
            length, stream, kind, channel, reserved = HEADER.unpack_from(source, at)
            _check(length, stream, kind, channel, reserved)
            start, end = at + HEADER.size, at + HEADER.size + length
            if end > size:
                self._wanted = end - at
                return at
            yield Frame(stream, kind, channel, bytes(view[start:end]))
            at = end
        self._wanted = HEADER.size
        return at

    @property
    def incomplete(self) -> bool:
        """Whether the stream would end in the middle of a frame if it ended now."""
        return bool(self._held)
