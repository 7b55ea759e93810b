"""One stream as the double sees it: a request being done, its data, its last message."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from firebrick.guest import message, protocol
from firebrick.guest.double.answer import answer
from firebrick.guest.double.disk import Refusal
from firebrick.guest.double.ports import Door
from firebrick.guest.double.task import Running, Task
from firebrick.guest.errors import ProtocolError
from firebrick.guest.output import Output
from firebrick.guest.protocol import Channel, Frame, Kind

if TYPE_CHECKING:
    from firebrick.guest.double.agent import Session

PIECE = 1 << 16
_READS_INPUT = (message.Write, message.Upload, message.Connect, message.Accept)


class Exchange:
    """Does one request. `running` is the program of an exec, `door` the one of a listen, while there is one; `waits` whether data may not come yet."""

    def __init__(self, session: Session, number: int, request: message.Request, *, named: bool) -> None:
        self.session = session
        self.id = number
        self.request = request
        self._named = named
        self.input = Output(lambda amount: session.grant(number, amount))
        self._credit = {Channel.OUTPUT: protocol.INITIAL_CREDIT, Channel.ERROR: protocol.INITIAL_CREDIT}
        self._change = asyncio.Event()
        self._unheard = False
        self.waits = isinstance(request, (message.Accept, message.Listen)) or bool(_before(request))
        self.door: Door | None = None
        self.task: Task | None = None
        self.running: Running | None = None
        self._job = asyncio.create_task(self._do(), name=f"double-{number}")

    # --- what the host sends ---

    def receive(self, frame: Frame, messages: protocol.Messages[message.FromHostStream]) -> None:
        match frame.kind:
            case Kind.DATA if frame.channel == Channel.INPUT and self.takes_input():
                self.input.receive(frame.payload)
            case Kind.EOF if frame.channel == Channel.INPUT and not self.waits:
                self.input.end()
            case Kind.CREDIT if frame.channel != Channel.INPUT:
                self._grant(Channel(frame.channel), protocol.credit_amount(frame))
            case Kind.RESET:
                self._reset()
            case Kind.CONTROL:
                self._instruct(messages.decode(frame.payload))
            case _:
                raise ProtocolError(
                    f"the host sent a frame of kind {frame.kind} on channel {frame.channel} of stream {self.id}"
                )

    def takes_input(self) -> bool:
        if self.waits:  # for a connection
            return False
        request = self.request
        return isinstance(request, _READS_INPUT) or (
            isinstance(request, message.Exec) and (request.stdin or request.pty is not None)
        )

    def _grant(self, channel: Channel, amount: int) -> None:
        self._credit[channel] += amount
        if self._credit[channel] > protocol.MAX_CREDIT:
            raise ProtocolError(f"the host granted more than {protocol.MAX_CREDIT} bytes of credit")
        self._change.set()

    def _instruct(self, record: message.FromHostStream) -> None:
        if not isinstance(self.request, message.Exec):
            raise ProtocolError(f"the host sent {type(record).__name__.lower()} on a stream that is no exec")
        match record:
            case message.Signal(number=number):
                if self.running is not None:
                    self.running.signal(number)
            case message.Resize(rows=rows, cols=cols):
                if self.task is not None:
                    self.task.size = message.PtySize(rows, cols)
                    self._signal_resize()
            case _:
                raise ProtocolError(f"the host sent {type(record).__name__.lower()} on an open stream")

    def _signal_resize(self) -> None:
        if self.running is not None:
            self.running.signal(signal.SIGWINCH)

    def _reset(self) -> None:
        if not self._outlives():
            self._job.cancel()
            return
        self._let_go()
        answer = asyncio.create_task(self._last(_reset_error()), name=f"double-{self.id}-reset")
        self.session.guest.detached.add(answer)
        answer.add_done_callback(self.session.guest.detached.discard)

    async def abandon(self) -> None:
        """The connection is over: end, unless this is a detached program, which goes on without a listener."""
        if self._outlives():
            self._let_go()
            return
        self._unheard = True
        self._job.cancel()
        await asyncio.wait([self._job])

    def _outlives(self) -> bool:
        return isinstance(self.request, message.Exec) and self.request.detach and self.running is not None

    def _let_go(self) -> None:
        self._unheard = True
        self._change.set()
        self.input.end()
        self.session.guest.detached.add(self._job)
        self._job.add_done_callback(self.session.guest.detached.discard)

    # --- the work ---

    async def _do(self) -> None:
        try:
            last = await answer(self, self.request) if self._named else _NAMELESS
        except Refusal as refusal:
            last = message.Error(code=refusal.code, message=str(refusal), errno=refusal.number)
        except asyncio.CancelledError:
            last = _reset_error()
        if not self._unheard:
            await self._last(last)

    async def _last(self, record: message.FromGuestStream) -> None:
        frames = [protocol.control(self.id, record)]
        if not isinstance(record, message.Error):
            frames = [protocol.eof(self.id, channel) for channel in self._channels()] + frames
        self.session.forget(self.id)
        with contextlib.suppress(OSError):
            await self.session.send(b"".join(frames))

    def _channels(self) -> tuple[Channel, ...]:
        match self.request:
            case message.Exec():
                return Channel.OUTPUT, Channel.ERROR
            case message.Read() | message.List() | message.Download() | message.Connect() | message.Accept():
                return (Channel.OUTPUT,)
        return ()

    async def send(self, channel: Channel, data: bytes) -> None:
        """Send what the host's credit allows, and wait for more."""
        while data and not self._unheard:
            size = min(len(data), self._credit[channel], PIECE)
            if not size:
                self._change.clear()
                await self._change.wait()
                continue
            self._credit[channel] -= size
            with contextlib.suppress(OSError):  # the host is gone: this will be ended, or is detached
                await self.session.send(protocol.data(self.id, channel, data[:size]))
            data = data[size:]


def _before(request: message.Request) -> tuple[message.Put | message.Move, ...]:
    return request.before if isinstance(request, message.Exec) else ()


_NAMELESS = message.Error(code="no_identity", message="cannot do anything yet: the machine has no identity", errno=None)


def _reset_error() -> message.Error:
    return message.Error(code="reset", message="the request was given up by the host", errno=None)
