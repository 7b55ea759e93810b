"""Policies, their rules and the resolver's configuration: text in, text out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from firebrick.machine.errors import HostError, SpecError
from firebrick.machine.network.addresses import RANGE, addresses
from firebrick.machine.network.policy import MOST_RULES, Allow, Forward, NetworkPolicy, Transport
from firebrick.machine.network.resolver import configuration, parse_servers
from firebrick.machine.network.rules import (
    change_forwards,
    elements_of,
    forward_elements,
    host_ruleset,
    name_set,
    slot_ruleset,
)
from firebrick.machine.network.slot import shaping
from firebrick.machine.seat import Seat
from firebrick.machine.spec import RateLimit

VECTORS = Path(__file__).parents[2] / "vectors" / "network"
AT = addresses(Seat(3, 2_000_003, 2_000_003), RANGE, (IPv4Address("9.0.0.53"),))
MIXED = NetworkPolicy(
    allow=(
        Allow("9.9.9.0/24", (443, 80, 443)),
        Allow("10.1.0.0/16", (53,), Transport.UDP),
        Allow("0.0.0.0/0"),
        Allow("*.example.org", (443,)),
    ),
    forwards=(Forward(8080, 80), Forward(8081, 80), Forward(5353, 53, Transport.UDP, "192.0.2.1")),
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothing", slot_ruleset(NetworkPolicy(), AT, generation=1)),
        ("mixed", slot_ruleset(MIXED, AT, generation=2, obsolete=["old.example.org"])),
        ("host", host_ruleset(RANGE)),
    ],
)
def test_rulesets_are_as_they_are_written_down(name: str, text: str):
    assert text == (VECTORS / f"{name}.nft").read_text()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            ["example.org"],
            ["server=/example.org/9.0.0.53", "address=/*.example.org/", "nftset=/example.org/=example.org"],
        ),
        (
            ["*.example.org"],
            ["server=/*.example.org/9.0.0.53", "address=/example.org/", "nftset=/example.org/=*.example.org"],
        ),
        (
            ["example.org", "*.example.org"],
            [
                "server=/*.example.org/9.0.0.53",
                "server=/example.org/9.0.0.53",
                "nftset=/example.org/=*.example.org,example.org",
            ],
        ),
        (
            ["*.example.org", "git.example.org"],
            [
                "server=/*.example.org/9.0.0.53",
                "address=/example.org/",
                "server=/git.example.org/9.0.0.53",
                "address=/*.git.example.org/",
                "nftset=/example.org/=*.example.org",
                "nftset=/git.example.org/=*.example.org,git.example.org",
            ],
        ),
    ],
)
def test_the_resolver_is_told_which_names_there_are(policy: list[str], expected: list[str]):
    text = configuration(NetworkPolicy(allow=tuple(Allow(name, (443,)) for name in policy)), AT)
    for name in policy:
        text = text.replace(f"4#inet#firebrick#{name_set(name)}", name)
    lines = [line for line in text.splitlines() if line.startswith(("server=", "address=", "nftset="))]
    assert lines == [line.replace("/=", "/") for line in expected]


def test_names_may_lead_into_private_networks_only_where_one_is_allowed():
    names = (Allow("example.org"),)
    assert "stop-dns-rebind" in configuration(NetworkPolicy(allow=names), AT).splitlines()
    assert "stop-dns-rebind" in configuration(NetworkPolicy(allow=(*names, Allow("0.0.0.0/0"))), AT).splitlines()
    assert "stop-dns-rebind" not in configuration(NetworkPolicy(allow=(*names, Allow("10.0.0.0/8"))), AT).splitlines()


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 10.0.0.1\nsearch x\nnameserver 10.0.0.2 # two", ["10.0.0.1", "10.0.0.2"]),
        ("nameserver 127.0.0.53\nnameserver fe80::1%2\n#nameserver 10.0.0.3", []),
        ("nameserver\nnameserver 1.1.1.1\n" * 5, ["1.1.1.1"] * 3),
    ],
)
def test_the_servers_of_a_host(text: str, servers: list[str]):
    assert [str(each) for each in parse_servers(text)] == servers


@pytest.mark.parametrize("network", ["169.254.169.254", "169.254.0.0/16", "127.0.0.1", "224.0.0.1", "168.63.129.16"])
def test_what_is_never_reached_cannot_be_allowed(network: str):
    with pytest.raises(SpecError, match="no machine reaches"):
        Allow(network)


@pytest.mark.parametrize(
    "to",
    [
        "",
        "Example.org",
        "exa mple.org",
        "*",
        "*.org.",
        "a.*.org",
        "1.2.3",
        "10.0.0.1/8",
        "fd00::1",
        'a".org',
        "localhost",
        "x" * 64 + ".org",
    ],
)
def test_what_is_no_network_and_no_name_is_refused(to: str):
    with pytest.raises(SpecError, match="neither a network"):
        Allow(to)


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "::1", "host"])
def test_a_forward_is_from_one_address_of_the_host(address: str):
    with pytest.raises(SpecError, match="cannot forward from"):
        Forward(80, 80, address=address)


def test_a_port_is_forwarded_once():
    with pytest.raises(SpecError, match="cannot forward tcp port 80 of 127.0.0.1 twice"):
        NetworkPolicy(forwards=(Forward(80, 80), Forward(80, 81)))
    NetworkPolicy(forwards=(Forward(80, 80), Forward(80, 80, Transport.UDP)))


def test_a_name_and_what_is_below_it_are_allowed_alike():
    with pytest.raises(SpecError, match="other ports at example.org than at"):
        NetworkPolicy(allow=(Allow("example.org", (22,)), Allow("*.example.org", (443,))))
    NetworkPolicy(allow=(Allow("example.org", (22, 443)), Allow("*.example.org", (443, 22))))


def test_ports_count_as_rules():
    with pytest.raises(SpecError, match="more than 1000 rules"):
        NetworkPolicy(allow=(Allow("9.9.9.9", tuple(range(1, MOST_RULES + 2))),))


@pytest.mark.parametrize(
    ("network", "private"),
    [
        ("10.0.0.0/8", True),
        ("10.1.2.3", True),
        ("10.0.0.0/7", False),
        ("0.0.0.0/0", False),
        ("100.64.0.0/10", True),
        ("a.org", False),
    ],
)
def test_only_a_network_inside_a_private_one_opens_it(network: str, private: bool):
    assert Allow(network).private is private


def test_a_range_has_room_for_so_many_seats():
    small = IPv4Network("10.213.0.0/29")
    last = addresses(Seat(3, 5, 5), small)
    assert (str(last.host), str(last.peer)) == ("10.213.0.6", "10.213.0.7")
    with pytest.raises(HostError, match="has addresses for 4"):
        addresses(Seat(4, 5, 5), small)


def test_forwards_are_changed_in_one_step():
    one, two, three = Forward(80, 8000), Forward(81, 8001), Forward(82, 8002, Transport.UDP)
    assert change_forwards([one, two], [two, three], AT) == (
        "delete element inet firebrick forwards { 127.0.0.1 . tcp . 80 }\n"
        "create element inet firebrick forwards { 127.0.0.1 . udp . 82 : 10.213.0.7 . 8002 }\n"
    )
    assert change_forwards([one], [one], AT) == ""
    assert forward_elements([two], AT) == ["127.0.0.1 . tcp . 81 : 10.213.0.7 . 8001"]


def test_entries_of_the_map_are_known_by_where_they_lead():
    entries = [
        [{"concat": ["127.0.0.1", "tcp", 80]}, {"concat": ["10.213.0.7", 8000]}],
        [{"concat": ["127.0.0.1", "udp", 81]}, {"concat": ["10.213.0.9", 8000]}],
        "something else",
    ]
    assert elements_of(entries, AT.peer) == ["127.0.0.1 . tcp . 80"]


def test_a_rate_is_held_at_both_ends():
    assert shaping(RateLimit(bytes_per_s=1_000_000)) == [
        f"qdisc add dev {link} root tbf rate 1000000bps burst 16384 latency 50ms" for link in ("tap0", "uplink")
    ]
    assert "burst 10000000 " in shaping(RateLimit(bytes_per_s=10**9, burst_bytes=5))[0]
    assert "burst 99999 " in shaping(RateLimit(bytes_per_s=1000, burst_bytes=99_999))[0]
    assert shaping(RateLimit()) == []
    with pytest.raises(SpecError, match="packets a second"):
        shaping(RateLimit(operations_per_s=5))
