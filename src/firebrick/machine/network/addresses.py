"""Addresses: those a guest sees, the same in every namespace, and those of a namespace on its host, which follow from its seat.

Each namespace is linked to the host by two addresses of a range of the host's choice, a /31 for each seat: `10.213.0.0/16` has room for 32768.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.seat import MOST, Seat

TAP: Final = "tap0"
UPLINK: Final = "uplink"
GUEST: Final = IPv4Address("10.0.2.15")
GUEST_MAC: Final = "52:54:00:12:34:56"
GATEWAY: Final = IPv4Address("10.0.2.2")
RESOLVER: Final = IPv4Address("10.0.2.3")
PREFIX: Final = 24
# A fork remembers who its gateway is: the tap has one address of hardware everywhere, that of QEMU's user network.
TAP_MAC: Final = "52:55:0a:00:02:02"
RANGE: Final = IPv4Network("10.213.0.0/16")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Of one namespace: `host` is the host's end of the link, `peer` the namespace's, both inside `range`. `resolver_uid` is the user its
    resolver runs as, nobody else's; `upstreams` are the servers the resolver asks."""

    host: IPv4Address
    peer: IPv4Address
    range: IPv4Network
    resolver_uid: int
    upstreams: tuple[IPv4Address, ...] = ()


def addresses(seat: Seat, within: IPv4Network, upstreams: tuple[IPv4Address, ...] = ()) -> Addresses:
    """Of the namespace of this seat. Raises HostError when the range has no room for it."""
    first = 2 * seat.number
    if first + 1 >= within.num_addresses:
        raise HostError(
            f"cannot give seat {seat.number} a network: {within} has addresses for {within.num_addresses // 2}",
            hint="Give the network a larger range of addresses.",
        )
    return Addresses(within[first], within[first + 1], within, seat.uid + MOST, upstreams)
