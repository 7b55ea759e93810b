"""Following a build as server-sent events.

id: 17                  the number of the line; a client that comes back with it as Last-Event-ID goes on behind it
event: log
data: {"n":17,"at":...,"job":"build","step":1,"stream":"stdout","text":"..."}

event: status           data: {"status":"running_build", ...}       whenever it changes
event: end              data: {"status":"completed", ...}           the last one
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from fastapi.responses import StreamingResponse
from starlette.types import Send

from firebrick.server.follow import Lines, Quiet, Update
from firebrick.server.record import Build
from firebrick.server.shape import BuildView

MEDIA_TYPE: Final = "text/event-stream"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """A response that closes its source at once when the client has gone, and not when the collector comes round."""

    media_type = MEDIA_TYPE

    def __init__(self, updates: AsyncGenerator[Update]) -> None:
        self._source = _encode(updates)
        super().__init__(self._source, headers=_HEADERS)

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._source):
            await super().stream_response(send)


class TextStream(StreamingResponse):
    """Plain text from a source that is closed at once when the client has gone."""

    def __init__(self, pieces: AsyncGenerator[str]) -> None:
        self._source = pieces
        super().__init__(pieces, media_type="text/plain", headers={"X-Content-Type-Options": "nosniff"})

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._source):
            await super().stream_response(send)


async def _encode(updates: AsyncGenerator[Update]) -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    async with aclosing(updates):
        async for update in updates:
            yield _event(update)


def _event(update: Update) -> bytes:
    match update:
        case Lines(first, lines):
            return b"".join(b"id: %d\nevent: log\ndata: %b\n\n" % (first + i, line) for i, line in enumerate(lines))
        case Build():
            name = b"end" if update.state.final else b"status"
            return b"event: %b\ndata: %b\n\n" % (name, BuildView.of(update).model_dump_json().encode())
        case Quiet():
            return b": still here\n\n"
