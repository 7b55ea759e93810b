"""The host end of the agent protocol: commands, files, trees and ports of one guest."""

from __future__ import annotations

from firebrick.guest.stream import ByteStream, SocketStream, open_stream, stream_from

__all__ = ["ByteStream", "SocketStream", "open_stream", "stream_from"]
