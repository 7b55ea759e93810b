"""One stream of a connection: a request, its data in both directions, its one last message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from firebrick.guest import message, protocol
from firebrick.guest.entries import check_name
from firebrick.guest.errors import ProtocolError, StreamClosedError, agent_error
from firebrick.guest.output import Output
from firebrick.guest.protocol import Channel, Frame, Kind

if TYPE_CHECKING:
    from firebrick.guest.connection import Connection

PIECE = 1 << 16
"""The largest data frame sent: what an urgent message may have to wait for, from each stream that is sending."""

_MESSAGES = protocol.Messages[message.FromGuestStream](message.FromGuestStream, "on the stream of a request")
_A = TypeVar("_A", bound=message.Message)


class _Shape(NamedTuple):
    """What may come back on the stream of a request."""

    last: type[message.Message] = message.Done
    first: type[message.Message] | None = None
    channels: frozenset[int] = frozenset()


_OUTPUT = frozenset({int(Channel.OUTPUT)})
_SHAPES: dict[type[message.Message], _Shape] = {
    message.Exec: _Shape(message.Exit, message.Started, _OUTPUT | {int(Channel.ERROR)}),
    message.Connect: _Shape(first=message.Connected, channels=_OUTPUT),
    message.Accept: _Shape(first=message.Connected, channels=_OUTPUT),
    message.Listen: _Shape(first=message.Listening),
    message.Stat: _Shape(message.Entry),
    message.Read: _Shape(channels=_OUTPUT),
    message.List: _Shape(channels=_OUTPUT),
    message.Download: _Shape(channels=_OUTPUT),
}


class Stream:
    """Opened by `Connection.stream`. `output` and `error` are channels 1 and 2."""

    def __init__(self, connection: Connection, number: int, request: message.Request) -> None:
        self._connection = connection
        self.id = number
        self.name = type(request).__name__.lower()
        self._shape = _SHAPES.get(type(request), _Shape())
        self._lists = isinstance(request, message.Exec) and request.listing is not None
        self.output = Output(lambda n: connection.grant(number, Channel.OUTPUT, n))
        self.error = Output(lambda n: connection.grant(number, Channel.ERROR, n))
        self._credit = protocol.INITIAL_CREDIT
        self._sendable = asyncio.Event()
        self._sendable.set()
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._first: message.Message | None = None
        self._last: message.Message | None = None
        self._given_up = False

    @property
    def ended(self) -> bool:
        """Whether the last message has come, or never will."""
        return self._closed.is_set()

    async def first(self) -> message.Message:
        """The message that says the request is under way. Raises AgentError if it was refused."""
        await self._opened.wait()
        if self._first is None:
            await self.last(message.Message)
            raise ProtocolError(f"the guest ended {self.name} before it began")
        return self._first

    async def last(self, expected: type[_A]) -> _A:
        """The last message. Raises AgentError for an `error`, ChannelError when it cannot come any more."""
        await self._closed.wait()
        if self._last is None:
            raise self._connection.failure()
        if isinstance(self._last, message.Error):
            raise agent_error(self._last.code, self._last.message, self._last.errno)
        assert isinstance(self._last, expected)
        return self._last

    async def settle(self) -> None:
        """Wait until the stream has ended, however it ended."""
        await self._closed.wait()

    # --- sending ---

    async def send(self, data: bytes | memoryview) -> None:
        """Send on channel 0; returns when the transport has room for more. Raises StreamClosedError when the stream has ended."""
        view = memoryview(data)
        while view:
            await self._sendable.wait()
            self._check_open()
            size = min(len(view), self._credit, PIECE)
            self._credit -= size
            if not self._credit:
                self._sendable.clear()
            await self._connection.transmit(protocol.data(self.id, Channel.INPUT, view[:size]))
            view = view[size:]

    async def send_eof(self) -> None:
        """Say that nothing more comes on channel 0. Does nothing on a stream that has ended."""
        if not (self.ended or self._given_up):
            await self._connection.transmit(protocol.eof(self.id, Channel.INPUT))

    async def say(self, record: message.Signal | message.Resize) -> None:
        """Send a message. Does nothing on a stream that has ended: who signals cannot know."""
        if not (self.ended or self._given_up):
            await self._connection.transmit(protocol.control(self.id, record))

    def give_up(self) -> None:
        """Reset the stream unless it has ended: the agent releases what it holds, and what it still sends is dropped."""
        if self.ended or self._given_up:
            return
        self._given_up = True
        self._connection.reset(self.id)
        for output in (self.output, self.error):
            output.fail(lambda: StreamClosedError(f"the {self.name} was given up"))
        self._sendable.set()

    def _check_open(self) -> None:
        if self._closed.is_set() and self._last is None:
            raise self._connection.failure()
        if self._closed.is_set() or self._given_up:
            raise StreamClosedError(f"cannot send more for the {self.name}: it has ended")

    # --- for the connection ---

    def receive(self, frame: Frame) -> bool:
        """Take a frame in. True when it was the last of this stream."""
        match frame.kind:
            case Kind.CONTROL:
                return self._receive_message(_MESSAGES.decode(frame.payload))
            case Kind.DATA:
                self._receive_data(frame)
            case Kind.CREDIT if frame.channel == Channel.INPUT:
                self._receive_credit(protocol.credit_amount(frame))
            case Kind.EOF if frame.channel != Channel.INPUT:
                (self.output if frame.channel == Channel.OUTPUT else self.error).end()
            case _:
                raise ProtocolError(
                    f"the guest sent a frame of kind {frame.kind} on channel {frame.channel}, which only a host may"
                )
        return False

    def _receive_message(self, record: message.FromGuestStream) -> bool:
        if isinstance(record, (message.Started, message.Connected, message.Listening)):
            if type(record) is not self._shape.first or self._first is not None:
                raise ProtocolError(f"the guest sent {type(record).__name__.lower()} for a {self.name} out of place")
            self._first = record
            self._opened.set()
            return False
        if not isinstance(record, (self._shape.last, message.Error)):
            raise ProtocolError(f"the guest answered a {self.name} with {type(record).__name__.lower()}")
        if isinstance(record, message.Exit):
            _check_exit(record, lists=self._lists)
        self._last = record
        self._close()
        return True

    def _receive_data(self, frame: Frame) -> None:
        if frame.channel not in self._shape.channels:
            raise ProtocolError(f"the guest sent data on channel {frame.channel} of a {self.name}")
        if not self._given_up:
            (self.output if frame.channel == Channel.OUTPUT else self.error).receive(frame.payload)

    def _receive_credit(self, amount: int) -> None:
        self._credit += amount
        if self._credit > protocol.MAX_CREDIT:
            raise ProtocolError(f"the guest granted more than {protocol.MAX_CREDIT} bytes of credit")
        if self._credit:
            self._sendable.set()

    def fail(self) -> None:
        """The connection is over before the last message."""
        for output in (self.output, self.error):
            output.fail(self._connection.failure)
        self._close()

    def _close(self) -> None:
        self._closed.set()
        self._opened.set()
        self._sendable.set()
        self.output.end()
        self.error.end()


def _check_exit(record: message.Exit, *, lists: bool) -> None:
    if (record.code is None) == (record.signal is None):
        raise ProtocolError("the guest did not say whether a command exited or was ended by a signal")
    if record.listing is not None and not lists:
        raise ProtocolError("the guest listed a directory that nobody asked for")
    for entry in record.listing or ():
        check_name(entry)


async def send_all(stream: Stream, data: bytes | AsyncIterable[bytes]) -> None:
    """Send `data` and its end. Stops early, without an error, where the agent has ended the stream: its last message says why."""
    try:
        if isinstance(data, (bytes, bytearray, memoryview)):
            await stream.send(data)
        else:
            async for chunk in data:
                await stream.send(chunk)
    except StreamClosedError:
        return
    await stream.send_eof()
