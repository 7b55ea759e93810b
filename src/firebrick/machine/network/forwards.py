"""Ports of the host that lead to one guest.

A forward is an entry of the host's map, and a socket of ours bound to the port that never listens: so nothing else of the host takes the port for its
own and wonders why it hears nothing, and a port or an address that cannot be had is refused at once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv4Address

from firebrick.machine.errors import HostError
from firebrick.machine.network.addresses import Addresses
from firebrick.machine.network.commands import nft
from firebrick.machine.network.namespace import set_settings
from firebrick.machine.network.policy import Forward, Transport
from firebrick.machine.network.rules import change_forwards


class Forwards:
    """Of the slot whose link on the host is `link`. One call at a time."""

    def __init__(self, link: str, at: Addresses) -> None:
        self._link = link
        self._at = at
        self._sockets: dict[Forward, socket.socket] = {}
        self._active: frozenset[Forward] = frozenset()

    def reserve(self, forwards: Iterable[Forward]) -> None:
        """Take the ports that are not ours yet: all of them or, raising HostError, none."""
        with ExitStack() as failing:
            taken = {each: failing.enter_context(_bound(each)) for each in forwards if each not in self._sockets}
            failing.pop_all()
        self._sockets |= taken

    async def activate(self, forwards: Iterable[Forward]) -> None:
        """Forward these, which are reserved, and no others; give the others' ports back. Raises HostError. Not to be cancelled."""
        wanted = frozenset(forwards)
        if any(IPv4Address(forward.address).is_loopback for forward in wanted):
            # For this link alone: what arrives there for 127.0.0.0/8 is dropped by the host's table before it is routed.
            set_settings({f"ipv4/conf/{self._link}/route_localnet": "1"})
        if commands := change_forwards(self._active, wanted, self._at):
            await nft(commands)
        self._active = wanted
        for gone in self._sockets.keys() - wanted:
            self._sockets.pop(gone).close()


def _bound(forward: Forward) -> socket.socket:
    kind = socket.SOCK_STREAM if forward.transport is Transport.TCP else socket.SOCK_DGRAM
    bound = socket.socket(socket.AF_INET, kind)
    try:
        bound.bind((forward.address, forward.port))
    except OSError as error:
        bound.close()
        raise HostError(
            f"cannot forward {forward.transport} port {forward.port} of {forward.address}: {error.strerror}",
            hint="Choose another port, or end what has it. A snapshot can be restored `with_forwards` that are free, or none.",
        ) from error
    return bound
