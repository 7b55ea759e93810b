"""A slot: one network namespace with a tap for one machine, a link to the host, and a firewall in between.

    guest 10.0.2.15 -- tap0 10.0.2.2 [ namespace: policy, counters, resolver 10.0.2.3 ] uplink -- fb7 [ host: nothing but outwards ]

A slot lets nothing through from the moment it exists. What a killed owner left of a seat is removed when the seat is taken again, or by `sweep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.network import addresses as places
from firebrick.machine.network import leftovers, resolver
from firebrick.machine.network.addresses import GATEWAY, GUEST, GUEST_MAC, PREFIX, RESOLVER, TAP, TAP_MAC, UPLINK
from firebrick.machine.network.commands import NAMESPACES, ip, list_nft, nft, tc
from firebrick.machine.network.forwards import Forwards
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.namespace import make_tap, open_tap, set_settings, visit
from firebrick.machine.network.policy import NOTHING_ALLOWED, NetworkPolicy
from firebrick.machine.network.rules import COUNTERS, GROUP, TABLE, slot_ruleset
from firebrick.machine.seat import Seat
from firebrick.machine.spec import RateLimit
from firebrick.task import shielded

_SETTINGS: Final = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/rp_filter": "1",
    "netfilter/nf_conntrack_tcp_loose": "0",  # what belongs to a connection of who had the seat before begins none
    "ipv4/ip_unprivileged_port_start": "53",  # the resolver's
}


# What a clock that ticks a hundred times a second must let through at once; less than a few packets would let none through.
_BURSTS_PER_S: Final = 100
_LEAST_BURST: Final = 16 << 10
_LONGEST_WAIT: Final = "50ms"


@dataclass(frozen=True, slots=True)
class Count:
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What went through a slot since it was made, and what did not. Egress comes from the guest; bytes are those of IP packets."""

    egress_allowed: Count
    egress_dropped: Count
    ingress_allowed: Count
    ingress_dropped: Count


class Slot:
    """Made by `opened`. `netns` is the namespace's file, `tap` the device in it that the seat's user may open."""

    def __init__(self, seat: Seat, host: HostNetwork) -> None:
        self.seat = seat
        self.netns: Path = NAMESPACES / seat.name
        self.tap = TAP
        self.addresses = places.addresses(seat, host.range, host.upstreams)
        self._policy = NOTHING_ALLOWED
        self._generation = 0
        self._turn = asyncio.Lock()
        self._resolver = AsyncExitStack()
        self._forwards = Forwards(seat.name, self.addresses)

    @property
    def policy(self) -> NetworkPolicy:
        """What is let through now."""
        return self._policy

    async def apply(self, policy: NetworkPolicy) -> None:
        """Let through what `policy` says from now on; connections that it does not allow end too. Counters go on.

        Raises HostError where it cannot be done, for instance because a port of the host is taken; then, and when it is cancelled, nothing is let
        through."""
        async with self._turn:
            if policy == self._policy and self._generation:
                return
            try:
                await self._change(policy)
            except BaseException:
                with contextlib.suppress(HostError):  # the namespace has gone: nothing gets through that either
                    await shielded(self._close())
                raise

    async def limit(self, rate: RateLimit) -> None:
        """Pass no more bytes than this in either direction: for VMMs that do not limit their taps themselves. Once a slot.

        Raises SpecError for a limit of operations, which are a VMM's."""
        await tc(shaping(rate), inside=self.seat.name)

    async def close(self) -> None:
        """Let nothing through any more, and give back ports of the host. Idempotent. Raises HostError when the slot has gone."""
        async with self._turn:
            await shielded(self._close())

    async def counters(self) -> Counters:
        """Raises HostError when the slot has gone."""
        records = await list_nft("counters", "table", *TABLE.split(), inside=self.seat.name)
        counters = {record["counter"]["name"]: record["counter"] for record in records if "counter" in record}
        return Counters(**{name: Count(counters[name]["packets"], counters[name]["bytes"]) for name in COUNTERS})

    async def open_tap(self) -> int:
        """The tap, for a VMM that inherits it and so needs no privilege. The caller closes the descriptor."""
        opened: list[int] = []
        try:
            await visit(self.netns, lambda: opened.append(open_tap(self.tap)))
        except BaseException:  # cancelled, and it is open nevertheless
            for fd in opened:
                os.close(fd)
            raise
        return opened[0]

    async def _change(self, policy: NetworkPolicy) -> None:
        """What may be refused comes first. The resolver is silent while its sets change."""
        resolver.check(policy, self.addresses)
        self._forwards.reserve(policy.forwards)
        again = policy.allow != self._policy.allow
        if again:
            await self._resolver.aclose()
        await shielded(self._set_rules(policy))
        if again and policy.names:
            await self._resolver.enter_async_context(resolver.resolving(self.seat.name, policy, self.addresses))
        await shielded(self._forwards.activate(policy.forwards))

    async def _set_rules(self, policy: NetworkPolicy) -> None:
        obsolete = set(self._policy.names) - set(policy.names)
        self._generation += 1
        ruleset = slot_ruleset(policy, self.addresses, generation=self._generation, obsolete=obsolete)
        await nft(ruleset, inside=self.seat.name)
        self._policy = policy

    async def _close(self) -> None:
        try:
            await self._forwards.activate(())
        finally:
            await self._resolver.aclose()
            if self._policy != NOTHING_ALLOWED:
                await self._set_rules(NOTHING_ALLOWED)

    async def _remove(self) -> None:
        try:
            await self._forwards.activate(())
        finally:
            await self._resolver.aclose()
            await leftovers.unmake(self.seat.name)


class Networks(Protocol):
    """What has slots."""

    def slot(self, policy: NetworkPolicy, occupant: Path) -> AbstractAsyncContextManager[Slot]:
        """See `SlotPool.slot`."""


@asynccontextmanager
async def opened(seat: Seat, host: HostNetwork) -> AsyncIterator[Slot]:
    """The slot of this seat, as long as the context; it lets nothing through yet. The host is `ready`.

    Raises HostError where this host cannot make one."""
    slot = Slot(seat, host)
    await shielded(leftovers.clear(seat.name, slot.addresses.peer))
    try:
        await shielded(_make(slot, host.mtu))  # half of it would not be known
        await slot.apply(NOTHING_ALLOWED)
        yield slot
    finally:
        await shielded(slot._remove())  # noqa: SLF001 - its other half


async def _make(slot: Slot, mtu: int) -> None:
    name, at = slot.seat.name, slot.addresses
    await ip(
        [
            f"netns add {name}",
            f"link add {name} mtu {mtu} group {GROUP} type veth peer name {UPLINK} mtu {mtu} netns {name}",
            f"link set {name} addrgenmode none",
            f"addr add {at.host}/31 dev {name}",
            f"link set {name} up",
        ]
    )
    await visit(slot.netns, lambda: _settle(slot.seat.uid))
    await ip(
        [
            "link set lo up",
            f"link set {TAP} mtu {mtu} address {TAP_MAC} up",
            f"addr add {GATEWAY}/{PREFIX} dev {TAP}",
            f"addr add {RESOLVER}/32 dev {TAP}",
            f"neigh add {GUEST} lladdr {GUEST_MAC} nud permanent dev {TAP}",
            f"link set {UPLINK} up",
            f"addr add {at.peer}/31 dev {UPLINK}",
            f"route add default via {at.host} dev {UPLINK}",
        ],
        inside=name,
    )


def shaping(rate: RateLimit) -> list[str]:
    """The commands of `tc` that hold both ends of a slot to a rate. Pure. Raises SpecError."""
    if rate.operations_per_s is not None:
        raise SpecError(
            "cannot limit the packets a second of a tap", hint="Limit the bytes, or use a driver that limits both."
        )
    if rate.bytes_per_s is None:
        return []
    burst = max(rate.burst_bytes, rate.bytes_per_s // _BURSTS_PER_S, _LEAST_BURST)
    return [
        f"qdisc add dev {link} root tbf rate {rate.bytes_per_s}bps burst {burst} latency {_LONGEST_WAIT}"
        for link in (TAP, UPLINK)
    ]


def _settle(uid: int) -> None:
    set_settings(_SETTINGS)
    make_tap(TAP, uid)
