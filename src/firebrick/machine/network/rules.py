"""A policy as one nftables ruleset, to be read by people and applied by `nft -f -` in one step. Pure.

A connection is judged when it begins, and carries the number of the policy that let it through as its mark. Later packets with this mark pass at
once. When another policy is applied the number is another one too: every connection there is is judged again, at its next packet in either
direction, by where it was made to; so what is no longer allowed ends, and what still is does not notice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from firebrick.machine.network.addresses import GUEST, GUEST_MAC, RESOLVER, TAP, UPLINK, Addresses
from firebrick.machine.network.policy import NEVER, PRIVATE, Allow, Forward, NetworkPolicy, Transport

TABLE: Final = "inet firebrick"
COUNTERS: Final = ("egress_allowed", "egress_dropped", "ingress_allowed", "ingress_dropped")
NAME_TIMEOUT_S: Final = 3600
_MOST_ADDRESSES: Final = 4096
MOST_CONNECTIONS: Final = 4096
MOST_QUESTIONS: Final = 1024
"""That the resolver answers, or has just answered: of a guest's connections these are not made in `outgoing`."""
GROUP: Final = 0xFB
"""The group of links (`ip link ... group`) all slots' ends on the host are in."""


def name_set(name: str) -> str:
    """The set that holds the addresses of a name: the same in every policy, so that a name that stays keeps them."""
    return f"name_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def slot_ruleset(policy: NetworkPolicy, at: Addresses, *, generation: int, obsolete: Iterable[str] = ()) -> str:
    """The whole firewall of a namespace. `generation` is above 0 and another one with each policy; `obsolete` are names of the policy before
    that are none of this one. Counters, and the addresses of names that stay, are kept."""
    gone = [f"delete set {TABLE} {name_set(name)}" for name in sorted(obsolete)]
    chains = (
        _source(),
        _between(generation),
        _outgoing(policy.allow, generation),
        _incoming(policy.forwards, generation),
        _own(policy, at),
        _translation(policy.forwards, at),
    )
    return _ruleset(gone, [*_objects(policy, at), *(line for chain in chains for line in chain)])


def host_ruleset(within: IPv4Network) -> str:
    """The host's own table, the same whatever slots there are, for slots with addresses `within`. Forwards are entries of its map."""
    return _ruleset([], list(_host(within)))


def forward_elements(forwards: Iterable[Forward], at: Addresses) -> list[str]:
    """The entries of the host's map that send forwards to this namespace: the keys of `delete element`, with values of `create element`."""
    return [
        f"{_forward_key(forward)} : {at.peer} . {forward.guest_port}"
        for forward in sorted(forwards, key=lambda f: (f.address, f.transport, f.port))
    ]


def change_forwards(old: Iterable[Forward], new: Iterable[Forward], at: Addresses) -> str:
    """Commands that take the host's map from these forwards to those, in one step; empty where there is nothing to change. `create` fails where
    somebody else has the port."""
    gone = [_forward_key(forward) for forward in sorted(set(old) - set(new), key=_forward_key)]
    come = forward_elements(set(new) - set(old), at)
    lines = [f"delete element {TABLE} forwards {{ {key} }}" for key in gone]
    lines += [f"create element {TABLE} forwards {{ {element} }}" for element in come]
    return "".join(f"{line}\n" for line in lines)


def _forward_key(forward: Forward) -> str:
    return f"{forward.address} . {forward.transport} . {forward.port}"


def _ruleset(before: list[str], body: list[str]) -> str:
    """Rules are replaced, sets and counters stay: a table is made where there is none, emptied of its rules, and filled."""
    inside = [f"    {line}" if line else "" for line in (body[:-1] if body[-1] == "" else body)]
    return "\n".join([f"table {TABLE}", f"flush table {TABLE}", *before, f"table {TABLE} {{", *inside, "}", ""])


def _objects(policy: NetworkPolicy, at: Addresses) -> Iterator[str]:
    for name in COUNTERS:
        yield f"counter {name} {{ }}"
    yield from _networks("never", (*NEVER, at.range))
    yield from _networks("private", PRIVATE)
    for name in policy.names:
        yield (
            f'set {name_set(name)} {{ type ipv4_addr; size {_MOST_ADDRESSES}; flags timeout, dynamic; timeout {NAME_TIMEOUT_S}s; comment "{name}"; }}'
        )
    yield ""


def _networks(name: str, networks: Iterable[IPv4Network]) -> Iterator[str]:
    members = ", ".join(str(network) for network in sorted(_apart(networks)))
    yield f"set {name} {{ type ipv4_addr; flags interval; elements = {{ {members} }}; }}"


def _apart(networks: Iterable[IPv4Network]) -> set[IPv4Network]:
    """Without those inside others: intervals of a set do not overlap."""
    every = set(networks)
    return {each for each in every if not any(each != other and each.subnet_of(other) for other in every)}


def _chain(name: str, *lines: str) -> Iterator[str]:
    yield f"chain {name} {{"
    yield from (f"    {line}" for line in lines)
    yield from ("}", "")


def _source() -> Iterator[str]:
    """Nothing comes from the tap but what the guest may call itself, and nothing of IPv6."""
    return _chain(
        "source",
        "type filter hook prerouting priority raw; policy accept;",
        f'iifname "{TAP}" meta nfproto != ipv4 counter name "egress_dropped" drop',
        f'iifname "{TAP}" ether saddr != {GUEST_MAC} counter name "egress_dropped" drop',
        f'iifname "{TAP}" ip saddr != {GUEST} counter name "egress_dropped" drop',
        f'iifname "{UPLINK}" meta nfproto != ipv4 counter name "ingress_dropped" drop',
    )


def _between(generation: int) -> Iterator[str]:
    """Between guest and world. A packet of no connection has no mark, and ends at the last line."""
    yield from _chain(
        "between",
        "type filter hook forward priority filter; policy drop;",
        f'iifname "{TAP}" oifname "{UPLINK}" goto outward',
        f'iifname "{UPLINK}" oifname "{TAP}" goto inward',
    )
    for name, counter in (("outward", "egress"), ("inward", "ingress")):
        yield from _chain(
            name,
            f"ct mark != {generation} jump judge",
            f'ct mark {generation} counter name "{counter}_allowed" accept',
            f'counter name "{counter}_dropped" drop',
        )
    yield from _chain("judge", f"ct original ip saddr {GUEST} goto outgoing", "ct status dnat goto incoming")


def _outgoing(allow: Iterable[Allow], generation: int) -> Iterator[str]:
    """What the guest may connect to. Order is what matters: never, named private networks, all other private ones, the rest. The host keeps
    each connection in a table it shares with everybody: one guest does not fill it."""
    private = [line for each in allow if each.private for line in _allowed(each, generation)]
    public = [line for each in allow if not each.private for line in _allowed(each, generation)]
    return _chain(
        "outgoing",
        f"ct state new ct count over {MOST_CONNECTIONS} return",
        "ct original ip daddr @never return",
        *private,
        "ct original ip daddr @private return",
        *public,
    )


def _allowed(allow: Allow, generation: int) -> Iterator[str]:
    target, note = str(allow.network), ""
    if allow.network is None:
        # The resolver cannot prolong what is in a set already; whoever connects to it does.
        target = f"@{name_set(allow.to)}"
        note = f' update {target} {{ ct original ip daddr }} comment "{allow.to}"'
    to, mark = f"ct original ip daddr {target}", f"ct mark set {generation}"
    if allow.ports:
        yield f"{to} meta l4proto {allow.transport} ct original proto-dst {_ports(allow.ports)} {mark}{note}"
        return
    yield f"{to} meta l4proto {{ tcp, udp }} {mark}{note}"
    yield f"{to} icmp type {{ echo-request, echo-reply }} {mark}{note}"


def _incoming(forwards: Iterable[Forward], generation: int) -> Iterator[str]:
    """Connections the host has forwarded."""
    return _chain(
        "incoming",
        *(
            f"meta l4proto {transport} ct original proto-dst {ports} ct mark set {generation}"
            for transport, ports in _guest_ports(forwards)
        ),
    )


def _own(policy: NetworkPolicy, at: Addresses) -> Iterator[str]:
    """The namespace itself: it is there for nobody, but for the resolver where names are allowed."""
    asked: list[str] = []
    answers: list[str] = []
    if policy.names:
        asked = [
            f'iifname "{TAP}" ct state new ct count over {MOST_QUESTIONS} counter name "egress_dropped" drop',
            f'iifname "{TAP}" ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 counter name "egress_allowed" accept',
            f'iifname "{UPLINK}" ct state established,related counter name "ingress_allowed" accept',
        ]
        servers = ", ".join(str(server) for server in at.upstreams)
        answers = [
            f'oifname "{TAP}" ip saddr {RESOLVER} ct state established counter name "ingress_allowed" accept',
            f'oifname "{UPLINK}" meta skuid {at.resolver_uid} ip daddr {{ {servers} }} meta l4proto {{ tcp, udp }} th dport 53 counter name "egress_allowed" accept',
        ]
    yield from _chain(
        "input",
        "type filter hook input priority filter; policy drop;",
        *asked,
        f'iifname "{TAP}" counter name "egress_dropped" drop',
        f'iifname "{UPLINK}" counter name "ingress_dropped" drop',
    )
    yield from _chain(
        "output",
        "type filter hook output priority filter; policy drop;",
        *answers,
        f'oifname "{TAP}" ct state related accept comment "what is too large, and the like"',
    )


def _translation(forwards: Iterable[Forward], at: Addresses) -> Iterator[str]:
    yield from _chain(
        "forwards",
        "type nat hook prerouting priority dstnat; policy accept;",
        *(
            f'iifname "{UPLINK}" ip daddr {at.peer} meta l4proto {transport} th dport {ports} dnat ip to {GUEST}'
            for transport, ports in _guest_ports(forwards)
        ),
    )
    yield from _chain(
        "outside",
        "type nat hook postrouting priority srcnat; policy accept;",
        f'oifname "{UPLINK}" ip saddr {GUEST} snat ip to {at.peer}',
    )


def _guest_ports(forwards: Iterable[Forward]) -> Iterator[tuple[Transport, str]]:
    every = list(forwards)
    for transport in Transport:
        if ports := [forward.guest_port for forward in every if forward.transport is transport]:
            yield transport, _ports(ports)


def _ports(ports: Iterable[int]) -> str:
    return f"{{ {', '.join(str(port) for port in sorted(set(ports)))} }}"


def _host(within: IPv4Network) -> Iterator[str]:
    yield "map forwards { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }"
    yield from _networks("never", NEVER)
    yield ""
    yield from _chain(
        "guard",
        "type filter hook prerouting priority raw; policy accept;",
        f"iifgroup {GROUP} meta nfproto != ipv4 drop",
        f"iifgroup {GROUP} ip saddr != {within} drop",
        f"iifgroup {GROUP} ip daddr @never drop",
    )
    yield from _chain(
        "forward",
        "type filter hook forward priority filter; policy accept;",
        f"iifgroup {GROUP} oifgroup {GROUP} drop",
        f'iifgroup {GROUP} ct direction original ct status dnat drop comment "somebody\'s forward of this host, which is not reached"',
        f"iifgroup {GROUP} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
        f"oifgroup {GROUP} ct state established,related accept",
        f"oifgroup {GROUP} ct status dnat accept",
        f"oifgroup {GROUP} drop",
    )
    yield from _chain(
        "input",
        "type filter hook input priority filter; policy accept;",
        f"iifgroup {GROUP} ct state established,related accept",
        f"iifgroup {GROUP} drop",
    )
    lookup = "dnat ip to ip daddr . meta l4proto . th dport map @forwards"
    yield from _chain(
        "forwards",
        "type nat hook prerouting priority dstnat; policy accept;",
        f"iifgroup != {GROUP} meta l4proto {{ tcp, udp }} {lookup}",
    )
    yield from _chain(
        "own_forwards",
        "type nat hook output priority -100; policy accept;",
        f"meta l4proto {{ tcp, udp }} {lookup}",
    )
    yield from _chain(
        "outside",
        "type nat hook postrouting priority srcnat; policy accept;",
        f"ip saddr {within} oifgroup != {GROUP} masquerade",
        f"ip saddr 127.0.0.0/8 oifgroup {GROUP} masquerade",
    )


def elements_of(entries: Iterable[object], peer: IPv4Address) -> list[str]:
    """Of the elements of the host's map, as `nft --json` lists them, the keys of those that lead to this address."""
    keys = []
    for entry in entries:
        match entry:
            case [{"concat": [str(address), str(transport), int(port)]}, {"concat": [str(target), int()]}]:
                if target == str(peer):
                    keys.append(f"{address} . {transport} . {port}")
            case _:
                continue
    return keys
