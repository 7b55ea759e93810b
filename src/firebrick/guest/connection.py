"""One connection to an agent: many streams over one byte stream.

A single task reads; it never waits for anything but the next bytes, so no stream that nobody reads can hold up another: what a
stream may have on its way is bounded by the credit it was given. Whoever sends writes for itself, in whole frames. What must be sent
and has nobody to wait for it - credit for what was consumed, the reset of a stream that was given up, the thaw after a cancelled
quiesce - is collected, one entry for each channel, and sent by a second task.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import TypeVar

from firebrick.guest import message, protocol
from firebrick.guest.errors import BusyError, ChannelError, GuestError, ProtocolError
from firebrick.guest.exchange import Stream
from firebrick.guest.protocol import Frame
from firebrick.guest.rejoin import rejoined
from firebrick.guest.stream import READ_SIZE, ByteStream

MAX_UNANSWERED = 256
"""How many questions of one type may be without their answer: an agent that is stuck must not cost the host memory."""

_MESSAGES = protocol.Messages[message.FromGuestConnection](message.FromGuestConnection, "on stream 0")
_A = TypeVar("_A", bound=message.Message)
_Answer = asyncio.Future[message.Message]


class Connection:
    """Made by `connected`. `hello` is what the agent said last."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._next = 1
        self._streams: dict[int, Stream] = {}
        self._owed: dict[type[message.Message], deque[tuple[_Answer, message.Message | None]]] = {}
        self._greeted = asyncio.Event()
        self._gate = asyncio.Event()
        self._gate.set()
        self._mail = asyncio.Event()
        self._grants: dict[tuple[int, int], int] = {}
        self._resets: set[int] = set()
        self._thaw = False
        self._over = False
        self._cause: BaseException | None = None
        self._parted = False
        self._reading = asyncio.create_task(self._read(protocol.FrameDecoder()), name="guest-read")
        self.closing: asyncio.Task[None] | None = None
        self.hello: message.Hello | None = None

    # --- asking ---

    async def greet(self, patience: float) -> message.Hello:
        """The agent's hello: where it came with the connection, that one; else ask for it, again every `patience` seconds: what is sent before
        the guest listens may be lost."""
        await asyncio.sleep(0)  # what has come is read
        while not self._greeted.is_set():
            await self._send(protocol.control(0, message.HelloRequest()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._greeted.wait()
        self._check()
        assert self.hello is not None
        return self.hello

    async def ask(self, question: message.FromHostConnection, answer: type[_A], *, expected: _A | None = None) -> _A:
        """Send a question on stream 0 and wait for its answer; answers of one type come in the order of their questions. Another one
        than `expected`, where that is given, is a protocol error."""
        await self._may_send()
        future = self._owe(answer, expected)
        await self._send(protocol.control(0, question))
        reply = await future
        assert isinstance(reply, answer)
        return reply

    async def tell(self, record: message.FromHostConnection) -> None:
        """Send what has no answer."""
        await self._may_send()
        await self._send(protocol.control(0, record))

    def _owe(self, answer: type[message.Message], expected: message.Message | None = None) -> _Answer:
        self._check()
        owed = self._owed.setdefault(answer, deque())
        if len(owed) >= MAX_UNANSWERED:
            raise BusyError(
                f"cannot ask the agent: {len(owed)} questions of this kind are without an answer", code="busy"
            )
        future: _Answer = asyncio.get_running_loop().create_future()
        owed.append((future, expected))
        return future

    # --- freezing ---

    async def quiesce(self) -> None:
        """Freeze the guest and hold back everything this end would send, until `resume`. If this is cancelled or fails, the guest
        is thawed again."""
        await self._may_send()
        future = self._owe(message.Quiesced)
        self._gate.clear()
        try:
            await self._send(protocol.control(0, message.Quiesce()))
            await future
        except BaseException:
            self._thaw = True
            self._mail.set()
            raise

    async def resume(self) -> None:
        """Undo `quiesce`. Does nothing where nothing is frozen."""
        if self._gate.is_set():
            return
        future = self._owe(message.Resumed)
        self._open_gate()
        await self._send(protocol.control(0, message.Resume()))
        await future

    def _open_gate(self) -> None:
        self._thaw = False
        self._gate.set()
        self._mail.set()

    async def part(self) -> None:
        """Give the byte stream up while the guest is quiesced; everything that is open stays so. `rejoin` is next."""
        assert not self._gate.is_set(), "only a guest that is quiesced can be parted from"
        self._parted = True
        self._reading.cancel()  # nothing is on its way, and the stream of a machine that is paused may not even end
        await asyncio.wait([self._reading])
        await self._stream.close()

    @property
    def parted(self) -> bool:
        return self._parted

    async def rejoin(self, stream: ByteStream, machine_id: str) -> None:
        """Go on over another byte stream to the same machine. Raises ChannelError where that one is lost as well; `stream` is closed then, and another
        may be tried."""
        self._check()
        decoder = await rejoined(stream, machine_id)
        self._stream = stream
        self._parted = False
        self._reading = asyncio.create_task(self._read(decoder), name="guest-read")

    # --- streams ---

    def offers(self, feature: str) -> bool:
        """Whether the agent has said that it knows this."""
        return self.hello is not None and feature in self.hello.features

    async def do(self, request: message.Request) -> None:
        """A request that has no more to it than its end. Raises AgentError where it fails."""
        async with self.stream(request) as stream:
            await stream.last(message.Done)

    @contextlib.asynccontextmanager
    async def stream(self, request: message.Request) -> AsyncIterator[Stream]:
        """Open a stream with a request. A stream that has not ended at the end of the context is reset: the agent gives up what it
        does, and what it still sends is dropped."""
        stream = await self.open(request)
        try:
            yield stream
        finally:
            stream.give_up()

    async def open(self, request: message.Request) -> Stream:
        """As `stream`, for who sees to it that the stream is given up."""
        await self._may_send()
        stream = Stream(self, self._next, request)
        frame = protocol.control(stream.id, request)
        self._next += 1
        self._streams[stream.id] = stream
        try:
            await self._send(frame)
        except BaseException:
            stream.give_up()
            raise
        return stream

    async def transmit(self, frame: bytes) -> None:
        """Send a frame of a stream; returns when there is room for more."""
        await self._may_send()
        await self._send(frame)

    def grant(self, stream: int, channel: int, amount: int) -> None:
        self._grants[stream, channel] = self._grants.get((stream, channel), 0) + amount
        self._mail.set()

    def reset(self, stream: int) -> None:
        if not self._over:
            self._resets.add(stream)
            self._mail.set()

    async def _may_send(self) -> None:
        while not self._gate.is_set():
            await self._gate.wait()
        self._check()

    async def _send(self, frame: bytes) -> None:
        self._check()
        try:
            await self._stream.write(frame)
        except OSError as e:
            self.fail(e)
            raise self.failure() from e

    # --- the two tasks ---

    async def _post(self) -> None:
        while not self._over:
            await self._mail.wait()
            self._mail.clear()
            frames = []
            if self._thaw:
                with contextlib.suppress(GuestError):  # over, or so stuck that the answer does not matter
                    self._owe(message.Resumed)
                self._open_gate()
                frames.append(protocol.control(0, message.Resume()))
            if self._gate.is_set():
                frames += [protocol.credit(stream, channel, n) for (stream, channel), n in self._grants.items()]
                frames += [protocol.reset(stream) for stream in sorted(self._resets)]
                self._grants.clear()
                self._resets.clear()
            if frames:
                with contextlib.suppress(ChannelError):
                    await self._send(b"".join(frames))

    async def _read(self, decoder: protocol.FrameDecoder) -> None:
        try:
            while piece := await self._stream.read(READ_SIZE):
                for frame in decoder.feed(piece):
                    self._receive(frame)
            self._lose(
                EOFError("the guest's end was closed" + (" in the middle of a frame" if decoder.incomplete else ""))
            )
        except (OSError, GuestError) as e:
            self._lose(e)

    def _lose(self, cause: BaseException) -> None:
        if not self._parted:
            self.fail(cause)

    def _receive(self, frame: Frame) -> None:
        if frame.stream == 0:
            self._receive_message(_MESSAGES.decode(frame.payload))
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            state = "has ended" if frame.stream < self._next else "was never opened"
            raise ProtocolError(f"the guest sent a frame of kind {frame.kind} for stream {frame.stream}, which {state}")
        if stream.receive(frame):
            del self._streams[frame.stream]

    def _receive_message(self, record: message.FromGuestConnection) -> None:
        if isinstance(record, message.Hello):
            if self.hello is not None and self.hello.boot_id != record.boot_id:
                raise ProtocolError("the guest started anew on an open connection")
            self.hello = record
            self._greeted.set()
        elif isinstance(record, message.Fatal):
            raise GuestError(f"the agent gave up: {record.message}", hint="The machine's console may say more.")
        else:
            owed = self._owed.get(type(record))
            if not owed:
                raise ProtocolError(f"the guest sent {type(record).__name__.lower()} without being asked")
            future, expected = owed[0]
            if expected is not None and record != expected:
                raise ProtocolError(f"the guest answered {record} where {expected} was right")
            owed.popleft()
            if not future.done():
                future.set_result(record)

    # --- the end ---

    def failure(self) -> ChannelError:
        """A new exception that says why nothing can be done on this connection any more."""
        reason = f": {self._cause}" if self._cause is not None and str(self._cause) else ""
        error = ChannelError(f"the connection to the guest is over{reason}")
        error.__cause__ = self._cause
        return error

    def fail(self, cause: BaseException) -> None:
        """End everything that is waiting, and the byte stream. The first cause stays."""
        if self._over:
            return
        self.closing = asyncio.create_task(self._stream.close(), name="guest-close")
        self._over = True
        self._cause = cause
        for owed in self._owed.values():
            for future, _ in owed:
                if not future.done():
                    future.set_exception(self.failure())
                    future.exception()  # who asked may be gone; that is no news for the log
        for stream in self._streams.values():
            stream.fail()
        self._streams.clear()
        self._greeted.set()
        self._gate.set()
        self._mail.set()

    def _check(self) -> None:
        if self._over:
            raise self.failure()


@contextlib.asynccontextmanager
async def connected(stream: ByteStream) -> AsyncIterator[Connection]:
    """A connection over `stream`, which is closed at the end."""
    connection = Connection(stream)
    post = asyncio.create_task(connection._post(), name="guest-post")  # noqa: SLF001 - this is its constructor
    try:
        yield connection
    finally:
        connection.fail(EOFError("this end was closed"))
        tasks = (connection._reading, post)  # noqa: SLF001
        for task in tasks:
            task.cancel()
        assert connection.closing is not None
        await asyncio.gather(*tasks, connection.closing, return_exceptions=True)
