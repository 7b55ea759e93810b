"""Rows about bytes through a namespace: from a guest to a server outside, against the same guest behind a tap without a single rule."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

from bench import bare_firecracker as bare
from bench.lab.agent import first_output
from bench.lab.place import DEADLINE_S, Place
from bench.row import Row, compared
from firebrick import machine
from firebrick.machine import Machine
from firebrick.machine.network.policy import Allow, NetworkPolicy

_SERVER: Final = "9.9.9.1"
_PORT: Final = 5201
_MIB: Final = 8
_ROUNDS: Final = 4
_POLICY: Final = NetworkPolicy(allow=(Allow(_SERVER, (_PORT,)),))
_SEND: Final = (
    *("bash", "-c"),
    f"dd if=/dev/zero bs=64k count={_MIB * 16} 2>&1 > /dev/tcp/{_SERVER}/{_PORT} | tail -n 1",
)
# The server in a namespace of its own, and the floor's tap in another, both linked to the host, which forwards.
_OUTSIDE: Final = f"""
ip netns add outside
ip link add to-outside type veth peer name uplink netns outside
ip addr add 9.0.0.2/30 dev to-outside
ip link set to-outside up
ip -n outside addr add 9.0.0.1/30 dev uplink
ip -n outside addr add {_SERVER}/32 dev lo
ip -n outside link set lo up
ip -n outside link set uplink up
ip -n outside route add default via 9.0.0.2
ip route add default via 9.0.0.1
"""
_BARE: Final = """
ip netns add bare
ip link add to-bare type veth peer name uplink netns bare
ip addr add 9.0.1.1/30 dev to-bare
ip link set to-bare up
ip route add 10.0.2.0/24 via 9.0.1.2
ip -n bare addr add 9.0.1.2/30 dev uplink
ip -n bare link set lo up
ip -n bare link set uplink up
ip -n bare route add default via 9.0.1.1
ip netns exec bare sysctl -qw net.ipv4.ip_forward=1
ip -n bare tuntap add tap0 mode tap vnet_hdr
ip -n bare link set tap0 address 52:55:0a:00:02:02 up
ip -n bare addr add 10.0.2.2/24 dev tap0
"""


async def throughput(place: Place) -> list[Row]:
    floor, own = [], []
    allowed = dataclasses.replace(place.linked, spec=dataclasses.replace(place.linked.spec, policy=_POLICY))
    with _outside(), _bare(place) as theirs:
        async with machine.restore(allowed, place.jailed, home=place.home, deadline=DEADLINE_S) as ours:
            for _ in range(_ROUNDS + 1):
                floor.append(rate(await asyncio.to_thread(first_output, theirs, _SEND)))
                own.append(await _sent(ours))
    return [compared("bytes out of a namespace", "MB/s", floor[1:], own[1:], 0.9, more_is_better=True)]


async def _sent(ours: Machine) -> float:
    return rate((await ours.run(_SEND, check=True)).stdout)


def rate(said: bytes) -> float:
    """Of dd's last line, in MB/s. Raises ValueError for another."""
    match = re.search(rb"([0-9]+) bytes .*copied, ([0-9.e-]+) s", said)
    if match is None:
        raise ValueError(f"dd said {said!r}")
    return int(match[1]) / 1e6 / float(match[2])


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    _shell(_OUTSIDE)
    argv = [
        "ip",
        "netns",
        "exec",
        "outside",
        "socat",
        "-u",
        "-b",
        "65536",
        f"TCP-LISTEN:{_PORT},fork,reuseaddr",
        "OPEN:/dev/null",
    ]
    server = subprocess.Popen(argv)
    try:
        yield
    finally:
        server.kill()
        server.wait()
        _shell("ip netns del outside")


@contextlib.contextmanager
def _bare(place: Place) -> Iterator[bare.Bare]:
    _shell(_BARE)
    setup = dataclasses.replace(place.setup, wrapper=("ip", "netns", "exec", "bare"))
    directory = place.fresh("bare")
    try:
        with bare.restored(setup, place.linked.path, directory) as made:
            yield made
    finally:
        shutil.rmtree(directory)
        _shell("ip netns del bare")


def _shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)
