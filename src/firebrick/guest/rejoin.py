"""The first words on a new byte stream to a machine that was quiesced, from the host whose streams it has."""

from __future__ import annotations

from firebrick.guest import message, protocol
from firebrick.guest.errors import ChannelError, GuestError, ProtocolError
from firebrick.guest.stream import READ_SIZE, ByteStream

_MESSAGES = protocol.Messages[message.FromGuestConnection](message.FromGuestConnection, "on stream 0")


async def rejoined(stream: ByteStream, machine_id: str) -> protocol.FrameDecoder:
    """Make the guest go on with its streams on this byte stream; what it sends from now on is for the decoder that is returned.

    Raises ChannelError, and has closed `stream` then."""
    try:
        await stream.write(protocol.control(0, message.Continue(machine_id=machine_id)))
        return await _continued(stream)
    except (OSError, EOFError, GuestError) as error:
        await stream.close()
        raise ChannelError(f"cannot go on with the guest: {error}") from error
    except BaseException:
        await stream.close()
        raise


async def _continued(stream: ByteStream) -> protocol.FrameDecoder:
    decoder = protocol.FrameDecoder()
    while piece := await stream.read(READ_SIZE):
        answers = [_answer(frame) for frame in decoder.feed(piece)]
        if any(isinstance(answer, message.Continued) for answer in answers):
            return decoder
    raise EOFError("the guest's end was closed")


def _answer(frame: protocol.Frame) -> message.FromGuestConnection:
    """A quiesced guest says nothing but who it is, and that it goes on."""
    answer = _MESSAGES.decode(frame.payload) if frame.stream == 0 else None
    if not isinstance(answer, (message.Hello, message.Continued)):
        raise ProtocolError(
            f"the guest sent a frame of kind {frame.kind} for stream {frame.stream} while it was quiesced"
        )
    return answer
