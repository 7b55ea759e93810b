"""What a machine may reach, and what may reach it. Records, checked when they are made; nothing here touches the host."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from firebrick.machine.errors import SpecError

_NAME: Final = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_NAME: Final = 253
MOST_RULES: Final = 1000

NEVER: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "100.100.100.200/32",  # metadata services elsewhere
        "168.63.129.16/32",
        "192.0.0.192/32",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""Reached by no machine, whatever is allowed."""

PRIVATE: Final = tuple(
    IPv4Network(network)
    for network in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15")
)
"""Reached only where an `Allow` names a network inside them."""


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
        network = self.network
        if network is None and (len(self.to) > _LONGEST_NAME or not _NAME.fullmatch(self.to)):
            raise SpecError(
                f"cannot allow connections to {self.to!r}: it is neither a network, nor an address, nor a name",
                hint="Say 192.0.2.0/24, 192.0.2.7, example.org or *.example.org.",
            )
        if network is not None and _inside(network, NEVER):
            raise SpecError(
                f"cannot allow connections to {self.to}: no machine reaches metadata services, link-local, loopback or multicast addresses",
                hint="Leave it out of the policy.",
            )
        for port in self.ports:
            _check_port(port)

    @property
    def network(self) -> IPv4Network | None:
        """The network, where `to` is one or an address; None for a name."""
        try:
            return IPv4Network(self.to)
        except ValueError:
            return None

    @property
    def private(self) -> bool:
        """Whether it names a network inside a private range, which only such an `Allow` opens."""
        return self.network is not None and _inside(self.network, PRIVATE)


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
            address = IPv4Address(self.address)
        except ValueError as error:
            raise SpecError(
                f"cannot forward from {self.address!r}: {error}", hint="Name an IPv4 address of this host."
            ) from error
        if address.is_unspecified or address.is_multicast:
            raise SpecError(
                f"cannot forward from {self.address}: it is no address of one host",
                hint="Name an IPv4 address of this host, in a forward for each.",
            )


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Nothing is allowed but what is said here. Metadata services, link-local addresses and the host itself are never reached, private ranges only
    where an `Allow` names a network inside them."""

    allow: tuple[Allow, ...] = ()
    forwards: tuple[Forward, ...] = ()

    def __post_init__(self) -> None:
        if sum(max(1, len(allow.ports)) for allow in self.allow) + len(self.forwards) > MOST_RULES:
            raise SpecError(
                f"cannot make a network with more than {MOST_RULES} rules", hint="Allow networks, not addresses."
            )
        _check_forwards(self.forwards)
        _check_names(self.allow)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are allowed, each once, sorted."""
        return tuple(sorted({allow.to for allow in self.allow if allow.network is None}))


def _inside(network: IPv4Network, ranges: Iterable[IPv4Network]) -> bool:
    return any(network.subnet_of(each) for each in ranges)


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise SpecError(f"there is no port {port}", hint="Ports are 1 to 65535.")


def _check_forwards(forwards: tuple[Forward, ...]) -> None:
    ends = [(forward.address, forward.transport, forward.port) for forward in forwards]
    if twice := [end for end, count in Counter(ends).items() if count > 1]:
        address, transport, port = twice[0]
        raise SpecError(f"cannot forward {transport} port {port} of {address} twice", hint="Leave one out.")


def _check_names(allow: tuple[Allow, ...]) -> None:
    """The resolver tells the firewall about a domain and all below it in one: what is said of both must be the same."""
    names = {a.to for a in allow if a.network is None}
    for name in names:
        if f"*.{name}" in names and _opens(allow, name) != _opens(allow, f"*.{name}"):
            raise SpecError(
                f"cannot allow other ports at {name} than at *.{name}", hint="Give both the same ports and transport."
            )


def _opens(allow: tuple[Allow, ...], name: str) -> frozenset[tuple[frozenset[int], Transport]]:
    return frozenset((frozenset(a.ports), a.transport) for a in allow if a.to == name)


NOTHING_ALLOWED: Final = NetworkPolicy()
