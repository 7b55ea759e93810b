"""A guest that says exactly what a test tells it to, frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import pipe
from firebrick.guest.protocol import Frame, FrameDecoder, Kind
from firebrick.guest.stream import ByteStream

HELLO = message.Hello(
    version=1, minimum=1, agent="peer", kernel="none", boot_id="b", quiesced=False, features=("listen", "prepare")
)
EXIT = message.Exit(code=0, signal=None, timed_out=False, oom=False, cpu_us=0, memory_peak_bytes=0, wall_us=0)
HOST = protocol.Messages[message.Message](message.FromHostConnection | message.FromHostStream, "in a test")


class Peer:
    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def raw(self, *pieces: bytes) -> None:
        await self.stream.write(b"".join(pieces))

    async def say(self, record: message.Message, stream: int = 0) -> None:
        await self.raw(protocol.control(stream, record))

    async def frame(self) -> Frame:
        """The next frame of the host."""
        while not self._frames:
            piece = await self.stream.read(1 << 16)
            if not piece:
                raise EOFError("the host closed the connection")
            self._frames += self._decoder.feed(piece)
        return self._frames.pop(0)

    async def heard(self) -> message.Message:
        """The next message of the host; other frames are an error of the test."""
        frame = await self.frame()
        assert frame.kind == Kind.CONTROL, frame
        return HOST.decode(frame.payload)

    async def greet(self) -> None:
        assert isinstance(await self.heard(), message.HelloRequest)
        await self.say(HELLO)
        assert isinstance(await self.heard(), message.SetIdentity)
        await self.say(message.IdentityDone(boot_id="b"))


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Agent, Peer]]:
    """An agent client and the peer it is connected to, identity set."""
    host, guest = pipe()
    peer = Peer(guest)
    greeting = asyncio.create_task(peer.greet())
    async with Agent.connect(host, Identity.fresh("test"), timeout=10) as agent:
        await greeting
        yield agent, peer
    await guest.close()
