"""What is done in a guest before a command starts: in the same request where it can be, else by requests of its own."""

from __future__ import annotations

from msgspec.structs import replace

from firebrick.guest import message, protocol
from firebrick.guest.connection import Connection
from firebrick.guest.errors import AgentError, PreparationError
from firebrick.guest.exchange import send_all


async def prepared(connection: Connection, request: message.Exec) -> message.Exec:
    """The request as it can be sent: what cannot come along with it has been done. Raises PreparationError where it could not be."""
    if not request.before or _comes_along(connection, request):
        return request
    try:
        for change in request.before:
            await _carry_out(connection, change)
    except AgentError as error:
        raise PreparationError(str(error), code="unprepared", errno=error.errno, hint=error.hint) from error
    return replace(request, before=())


def _comes_along(connection: Connection, request: message.Exec) -> bool:
    """Whether the agent knows how, and a frame holds it."""
    return connection.offers(protocol.PREPARE) and len(message.pack(request)) <= protocol.MAX_CONTROL


async def _carry_out(connection: Connection, change: message.Put | message.Move) -> None:
    if isinstance(change, message.Move):
        await connection.do(change)
        return
    written = message.Write(path=change.path, mode=change.mode, uid=None, gid=None, parents=True, append=False)
    async with connection.stream(written) as stream:
        await send_all(stream, change.data)
        await stream.last(message.Done)
