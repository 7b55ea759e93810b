"""What a machine may reach, and what may reach it. Records, checked when they are made; nothing here touches the host."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from firebrick.machine.errors import SpecError

_NAME: Final = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_NAME: Final = 253
MOST_RULES: Final = 1000


class Transport(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Allow:
    """Something a machine may connect to. `to` is a network (`10.1.0.0/16`), an address, or a DNS name (`example.org`, `*.example.org` for all
    below it, not itself). `ports` empty means every port of TCP and UDP, and ICMP echo."""

    to: str
    ports: tuple[int, ...] = ()
    transport: Transport = Transport.TCP

    def __post_init__(self) -> None:
        if self.network is None and (len(self.to) > _LONGEST_NAME or not _NAME.fullmatch(self.to)):
            raise SpecError(
                f"cannot allow connections to {self.to!r}: it is neither a network, nor an address, nor a name",
                hint="Say 192.0.2.0/24, 192.0.2.7, example.org or *.example.org.",
            )
        for port in self.ports:
            _check_port(port)

    @property
    def network(self) -> ipaddress.IPv4Network | None:
        """The network, where `to` is one or an address; None for a name."""
        try:
            return ipaddress.IPv4Network(self.to)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Forward:
    """Connections to `port` of the host's address `address` reach `guest_port` of the machine."""

    port: int
    guest_port: int
    transport: Transport = Transport.TCP
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        _check_port(self.port)
        _check_port(self.guest_port)
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError as error:
            raise SpecError(
                f"cannot forward from {self.address!r}: {error}", hint="Name an IPv4 address of this host."
            ) from error


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Nothing is allowed but what is said here. Metadata services, link-local addresses and the host itself are never reached, private ranges only
    where an `Allow` names a network inside them."""

    allow: tuple[Allow, ...] = ()
    forwards: tuple[Forward, ...] = ()

    def __post_init__(self) -> None:
        if len(self.allow) + len(self.forwards) > MOST_RULES:
            raise SpecError(
                f"cannot make a network with more than {MOST_RULES} rules", hint="Allow networks, not addresses."
            )


NOTHING_ALLOWED: Final = NetworkPolicy()


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise SpecError(f"there is no port {port}", hint="Ports are 1 to 65535.")
