"""The agent's end of the protocol in Python, in memory: a guest without a machine.

It speaks real frames and is strict: what a host does that the protocol forbids ends the connection and is written down in `violations`.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine, Mapping
from typing import Self

import msgspec

from firebrick.guest import message, protocol
from firebrick.guest.double.disk import MemoryDisk
from firebrick.guest.double.exchange import Exchange
from firebrick.guest.double.pipe import PipeEnd, pipe
from firebrick.guest.double.ports import Door
from firebrick.guest.double.programs import PROGRAMS
from firebrick.guest.double.task import Port, Program
from firebrick.guest.errors import ProtocolError
from firebrick.guest.protocol import Channel, Frame, Kind
from firebrick.guest.stream import READ_SIZE, ByteStream

_CONNECTION = protocol.Messages[message.FromHostConnection](message.FromHostConnection, "on stream 0")
_STREAM = protocol.Messages[message.FromHostStream](message.FromHostStream, "on the stream of a request")


class _Saved(msgspec.Struct):
    """What outlives a machine in a snapshot: the disk and the kernel's boot id. Programs do not: coroutines cannot be copied."""

    boot_id: str
    disk: bytes


class GuestDouble:
    """A guest: a disk, programs, and an agent that one host at a time may connect to.

    `programs` may be changed at any time. `identity` is the last one a host has set, `violations` what hosts did wrong, `powered_off` is set when a
    host has ended the machine. With `silent` set it reads and never says a word. `seed` is the one it
    was given; with the feature for it, since nothing in it is random, it takes one. `ports` are what listens for the host's `connect`, on a TCP port
    or a unix path; `doors` what listens for the guest, which comes in by `dial`. `grace_s` is what a program that ran out of time has between
    SIGTERM and SIGKILL."""

    def __init__(
        self, *, programs: Mapping[str, Program] | None = None, disk: MemoryDisk | None = None, grace_s: float = 2.0
    ) -> None:
        self.programs: dict[str, Program] = {**PROGRAMS, **(programs or {})}
        self.disk = disk or MemoryDisk.furnished()
        self.grace_s = grace_s
        self.boot_id = str(uuid.uuid4())
        self.identity: message.SetIdentity | None = None
        self.quiesced = False
        self.silent = False
        self.features: tuple[str, ...] = (protocol.LISTEN, protocol.PREPARE)
        self.seed: message.Seed | None = None
        self.violations: list[str] = []
        self.powered_off = asyncio.Event()
        self.next_pid = 1
        self.ports: dict[int | bytes, Port] = {}
        self.doors: dict[tuple[str, int] | bytes, Door] = {}
        self.detached: set[asyncio.Task[None]] = set()
        self.held: Session | None = None
        self._session: asyncio.Task[None] | None = None

    def connect(self) -> ByteStream:
        """The host's end of a new connection. An earlier one ends."""
        host, guest = pipe()
        before, self._session = self._session, None
        self._session = asyncio.create_task(self._serve(guest, before), name="double-session")
        return host

    def dial(self, where: int | bytes, address: str = "127.0.0.1") -> PipeEnd:
        """Connect, as a program in the guest, to a port the host listens on, or a unix socket. Raises ConnectionRefusedError."""
        door = self.doors.get(where if isinstance(where, bytes) else (address, where))
        if door is None:
            raise ConnectionRefusedError(f"nobody listens on {where!r} of {address}")
        return door.knock()

    async def let_go(self) -> None:
        """Nobody continues what was held."""
        held, self.held = self.held, None
        if held is not None:
            await held.end()

    async def close(self) -> None:
        """End everything that runs. Idempotent."""
        tasks = [*self.detached, *([self._session] if self._session else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.let_go()

    def save(self) -> bytes:
        """Disk and boot id, for `restore`."""
        return msgspec.msgpack.encode(_Saved(boot_id=self.boot_id, disk=self.disk.save()))

    @classmethod
    def restore(cls, saved: bytes, *, programs: Mapping[str, Program] | None = None) -> Self:
        """A guest as `save` has found it: quiesced, and in need of an identity of its own."""
        record = msgspec.msgpack.decode(saved, type=_Saved)
        double = cls(programs=programs, disk=MemoryDisk.load(record.disk))
        double.boot_id = record.boot_id
        double.quiesced = True
        return double

    async def _serve(self, stream: ByteStream, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        self.identity = None if before is None else self.identity
        session = Session(self, stream)
        try:
            await session.run()
        except ProtocolError as e:
            self.violations.append(str(e))
        finally:
            acting = session.acting
            if self.quiesced and acting.named:
                self.held = acting  # the next connection says whose its streams are
            else:
                await _whole(acting.end())
            await stream.close()


async def _whole(work: Coroutine[None, None, None]) -> None:
    """Carry `work` out to its end, even if the next host comes meanwhile."""
    task = asyncio.create_task(work, name="double-end")
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)


class Session:
    """One connection of a host."""

    def __init__(self, guest: GuestDouble, stream: ByteStream) -> None:
        self.guest = guest
        self.stream = stream
        self._exchanges: dict[int, Exchange] = {}
        self._highest = 0
        self.named = False
        self._thawed = asyncio.Event()
        if not guest.quiesced:
            self._thawed.set()
        self.acting: Session = self
        self._grants: dict[tuple[int, int], int] = {}
        self._mail = asyncio.Event()

    async def run(self) -> None:
        """Serve until the host is gone or does something wrong."""
        decoder = protocol.FrameDecoder()
        poster = asyncio.create_task(self.post(), name="double-post")
        try:
            await self._hello()
            while piece := await self.stream.read(READ_SIZE):
                for frame in decoder.feed(piece):
                    before = self.acting
                    await before.receive(frame)
                    if self.acting is not before:
                        poster.cancel()
                        poster = asyncio.create_task(self.acting.post(), name="double-post")
        except OSError:
            pass  # the host is gone, which is its right
        finally:
            poster.cancel()
            await asyncio.gather(poster, return_exceptions=True)

    async def _take_over(self, machine_id: str) -> None:
        """The session that was held goes on, on this connection."""
        held, identity = self.guest.held, self.guest.identity
        if held is None or identity is None or identity.machine_id != machine_id:
            raise ProtocolError("there is nothing for this host to continue")
        self.guest.held = None
        held.stream = self.stream
        self.acting = held
        await self._say(message.Continued())

    async def end(self) -> None:
        """Kill what the streams of this connection run."""
        self._thawed.set()
        await asyncio.gather(*(exchange.abandon() for exchange in [*self._exchanges.values()]))

    # --- sending ---

    async def send(self, frame: bytes) -> None:
        """Send a frame of a stream, once the guest is not frozen."""
        await self._thawed.wait()
        if not self.guest.silent:
            await self.stream.write(frame)

    def grant(self, stream: int, amount: int) -> None:
        self._grants[stream, Channel.INPUT] = self._grants.get((stream, Channel.INPUT), 0) + amount
        self._mail.set()

    def door(self, stream: int) -> Door | None:
        """What a stream listens with."""
        exchange = self._exchanges.get(stream)
        return None if exchange is None else exchange.door

    def forget(self, stream: int) -> None:
        self._exchanges.pop(stream, None)
        self._grants.pop((stream, Channel.INPUT), None)

    async def post(self) -> None:
        while True:
            await self._mail.wait()
            await self._thawed.wait()
            self._mail.clear()
            grants, self._grants = self._grants, {}
            for (stream, channel), amount in grants.items():
                with contextlib.suppress(OSError):
                    await self.send(protocol.credit(stream, channel, amount))

    async def _say(self, record: message.FromGuestConnection) -> None:
        if not self.guest.silent:
            await self.stream.write(protocol.control(0, record))

    async def _hello(self) -> None:
        await self._say(
            message.Hello(
                version=protocol.VERSION,
                minimum=protocol.MINIMUM_VERSION,
                agent="double",
                kernel="none",
                boot_id=self.guest.boot_id,
                quiesced=self.guest.quiesced,
                features=self.guest.features,
            )
        )

    # --- receiving ---

    async def receive(self, frame: Frame) -> None:
        if frame.stream == 0:
            await self._order(_CONNECTION.decode(frame.payload))
            return
        if not self._thawed.is_set() and self.named:
            raise ProtocolError(f"the host sent a frame of kind {frame.kind} while the guest was quiesced")
        if frame.stream > self._highest:
            self._open(frame)
        elif frame.stream in self._exchanges:
            self._exchanges[frame.stream].receive(frame, _STREAM)

    def _open(self, frame: Frame) -> None:
        if frame.stream != self._highest + 1:
            raise ProtocolError(f"the host opened stream {frame.stream} after stream {self._highest}")
        if frame.kind != Kind.CONTROL:
            raise ProtocolError(f"the host opened stream {frame.stream} with a frame of kind {frame.kind}")
        request = _STREAM.decode(frame.payload)
        if isinstance(request, (message.Signal, message.Resize)):
            raise ProtocolError(f"the host opened stream {frame.stream} with {type(request).__name__.lower()}")
        self._highest = frame.stream
        self._exchanges[frame.stream] = Exchange(self, frame.stream, request, named=self.named)

    async def _order(self, record: message.FromHostConnection) -> None:
        match record:
            case message.HelloRequest():
                await self._hello()
            case message.SetIdentity():
                await self._name(record)
            case message.Ping(token=token):
                await self._say(message.Pong(token=token))
            case message.Usage():
                await self._say(self._usage())
            case message.Quiesce():
                self._thawed.clear()
                self.guest.quiesced = True
                await self._say(message.Quiesced())
            case message.Continue(machine_id=machine_id):
                await self._take_over(machine_id)
            case message.Resume():
                await self.guest.let_go()
                self._thaw()
                await self._say(message.Resumed())
            case message.Poweroff():
                self.guest.powered_off.set()
                raise ConnectionAbortedError("the machine is off")

    async def _name(self, record: message.SetIdentity) -> None:
        if not protocol.MIN_ENTROPY <= len(record.entropy) <= protocol.MAX_ENTROPY:
            raise ProtocolError(f"the host sent {len(record.entropy)} bytes of entropy")
        await self.guest.let_go()
        self.guest.identity = record
        for path, text in ((b"/etc/hostname", record.hostname), (b"/etc/machine-id", record.machine_id)):
            self.guest.disk.open(path, parents=True, truncate=True).content.write(0, text.encode() + b"\n")
        self.named = True
        self._thaw()
        await self._say(message.IdentityDone(boot_id=self.guest.boot_id))

    def _thaw(self) -> None:
        self.guest.quiesced = False
        self._thawed.set()
        self._mail.set()

    def _usage(self) -> message.UsageReport:
        used = sum(node.content.size for _, node in self.guest.disk.records(b"/"))
        return message.UsageReport(
            cpu_us=0,
            memory_bytes=0,
            memory_peak_bytes=0,
            processes=sum(e.running is not None for e in self._exchanges.values()) + len(self.guest.detached),
            scratch_used_bytes=used,
            scratch_total_bytes=max(used, 1 << 30),
        )
