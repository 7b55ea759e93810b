"""A machine whose random numbers follow from a seed."""

from __future__ import annotations

from firebrick.guest import message, protocol
from firebrick.guest.connection import Connection
from firebrick.guest.errors import UnsupportedError


async def seed(connection: Connection, request: message.Seed) -> None:
    """Raises UnsupportedError for an agent or a kernel that cannot."""
    if not connection.offers(protocol.SEED):
        raise UnsupportedError(
            "cannot seed random numbers in the guest: its agent does not know how",
            code="unsupported",
            hint="Make the template anew with the agent of this release.",
        )
    await connection.do(request)
