"""A host, an internet and guests, each a network namespace of the kernel's, none of them this computer's own.

The tests run inside the host's namespace: what they change of a firewall, of forwarding and of links is changed there. The internet is at the other end of
its only link, with whatever addresses a test wants. A guest is a namespace too, its device joined to a slot's tap frame by frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import socket
import struct
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.namespace import open_tap, visit
from firebrick.machine.network.slot import Slot

# Addresses of the internet. Some are what a guest shall never reach, and all of them answer.
ALLOWED, OTHER, NAMED, NAMED_TOO = "9.9.9.1", "9.9.8.1", "9.7.0.1", "9.7.0.2"
PRIVATE = ("10.1.0.5", "172.16.3.3", "192.168.1.1", "100.64.0.9", "198.18.0.9")
NEVER = ("169.254.169.254", "169.254.0.9", "168.63.129.16", "100.100.100.200", "192.0.0.192")
DNS = "9.0.0.53"
HOST = "9.0.0.2"
V6 = "fd99::1"
_NEWNET = 0x40000000
_number = itertools.count()


def sh(script: str) -> str:
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


@contextmanager
def own_network() -> Iterator[Path]:
    """Move this thread, and what it starts, into a new network namespace, and back."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:
        assert libc.unshare(_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
        finally:
            assert libc.setns(home.fileno(), _NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def named_network(kind: str) -> Iterator[Path]:
    name = f"test-{kind}-{os.getpid()}-{next(_number)}"
    sh(f"ip netns add {name}; ip -n {name} link set lo up")
    try:
        yield Path("/run/netns", name)
    finally:
        sh(f"ip netns del {name}")


@dataclass
class World:
    host: HostNetwork
    internet: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The names the internet's server was asked for."""

    async def socket(self, address: str, port: int, kind=socket.SOCK_STREAM) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return await visit(self.internet, lambda: _bound(family, kind, address, port))

    @asynccontextmanager
    async def serving(self, *addresses: str, port: int = 80) -> AsyncIterator[dict[str, int]]:
        """Servers that say their address and then what they hear. Yields how many connections each has had."""
        met = dict.fromkeys(addresses, 0)
        writers = []

        def at(address: str):
            async def serve(reader, writer):
                met[address] += 1
                writers.append(writer)
                with contextlib.suppress(ConnectionError):
                    writer.write(f"{address} {writer.get_extra_info('peername')[0]}\n".encode())
                    while line := await reader.readline():
                        writer.write(line)
                writer.close()

            return serve

        async with contextlib.AsyncExitStack() as stack:
            for address in addresses:
                server = await asyncio.start_server(at(address), sock=await self.socket(address, port))
                stack.push_async_callback(_stop, server)
            try:
                yield met
            finally:
                for writer in writers:
                    writer.transport.abort()

    @asynccontextmanager
    async def resolving(self) -> AsyncIterator[None]:
        """A server for `names`."""
        loop = asyncio.get_running_loop()
        sock = await self.socket(DNS, 53, socket.SOCK_DGRAM)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Names(self), sock=sock)
        try:
            yield
        finally:
            transport.close()
            await asyncio.sleep(0)


async def _stop(server: asyncio.Server) -> None:
    server.close()
    await asyncio.sleep(0)


def _bound(family: int, kind: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    return sock


class _Names(asyncio.DatagramProtocol):
    def __init__(self, world: World) -> None:
        self.world = world

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        labels, rest = [], data[12:]
        while rest[0]:
            labels.append(rest[1 : 1 + rest[0]].decode())
            rest = rest[1 + rest[0] :]
        name = ".".join(labels).lower()
        self.world.asked.append(name)
        question = data[12 : len(data) - len(rest) + 5]
        kind = struct.unpack(">H", rest[1:3])[0]
        found = self.world.names.get(name, []) if kind == 1 else []
        answers = b"".join(struct.pack(">HHHIH", 0xC00C, 1, 1, 600, 4) + IPv4Address(a).packed for a in found)
        code = 0 if name in self.world.names else 3
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        self.transport.sendto(head + question + answers, addr)


@contextmanager
def world() -> Iterator[World]:
    every = (ALLOWED, OTHER, NAMED, NAMED_TOO, DNS, *PRIVATE, *NEVER)
    with named_network("internet") as internet, own_network():
        name = internet.name
        sh(f"""ip link set lo up
            ip link add wan0 type veth peer name lan0 netns {name}
            ip addr add {HOST}/30 dev wan0; ip link set wan0 up; ip -6 addr add fd98::2/64 nodad dev wan0
            ip -n {name} addr add 9.0.0.1/30 dev lan0; ip -n {name} -6 addr add fd98::1/64 nodad dev lan0; ip -n {name} link set lan0 up
            ip route add default via 9.0.0.1; ip -6 route add default via fd98::1
            ip -n {name} -6 addr add {V6}/128 nodad dev lo; ip -n {name} -6 route add default via fd98::2""")
        sh("".join(f"ip -n {name} addr add {address}/32 dev lo\n" for address in every))
        network = HostNetwork(range=IPv4Network("10.213.0.0/16"), upstreams=(IPv4Address(DNS),))
        yield World(network, internet)


class Guest:
    """A machine as the slot sees it: the guest's addresses behind its tap."""

    def __init__(self, slot: Slot, netns: Path, wire: int) -> None:
        self.slot = slot
        self.netns = netns
        self.wire = wire

    def send_frame(self, frame: bytes) -> None:
        """Put a frame on the wire as the guest's hardware would."""
        os.write(self.wire, bytes(10) + frame)

    async def socket(self, kind=socket.SOCK_STREAM, family=socket.AF_INET) -> socket.socket:
        sock = await visit(self.netns, lambda: socket.socket(family, kind))
        sock.setblocking(False)
        return sock

    async def fetch(self, address: str, port: int = 80) -> str:
        """What the server there says first."""
        async with self.connection(address, port) as (reader, _):
            return (await reader.readline()).decode().split()[0]

    @asynccontextmanager
    async def connection(self, address: str, port: int = 80, timeout: float = 10):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = await self.socket(family=family)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def is_dropped(self, address: str, port: int = 80) -> bool:
        """Whether an attempt to connect is counted as dropped; False where it succeeds or is refused. Within 10 seconds."""
        before = (await self.slot.counters()).egress_dropped.packets
        attempt = asyncio.create_task(self.fetch(address, port))
        try:
            async with asyncio.timeout(10):
                while not attempt.done():
                    if (await self.slot.counters()).egress_dropped.packets > before:
                        return True
                    await asyncio.sleep(0.01)
            return False
        finally:
            attempt.cancel()
            await asyncio.wait([attempt])
            if not attempt.cancelled():
                attempt.exception()

    async def resolve(self, name: str, timeout: float = 5) -> tuple[int, list[str]]:
        """The response code and the addresses the resolver of the slot answers with. Raises TimeoutError."""
        sock = await self.socket(socket.SOCK_DGRAM)
        loop = asyncio.get_running_loop()
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
        with sock:
            await loop.sock_connect(sock, ("10.0.2.3", 53))
            await loop.sock_sendall(sock, struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + question)
            async with asyncio.timeout(timeout):
                reply = await loop.sock_recv(sock, 4096)
        count, body = struct.unpack(">H", reply[6:8])[0], reply[12 + len(question) :]
        return reply[3] & 15, [str(IPv4Address(body[n * 16 + 12 : n * 16 + 16])) for n in range(count)]


@asynccontextmanager
async def guest(slot: Slot) -> AsyncIterator[Guest]:
    with named_network("guest") as netns:
        inner = await visit(netns, lambda: open_tap("eth0"))
        outer = await slot.open_tap()
        loop = asyncio.get_running_loop()
        try:
            name = netns.name
            sh(f"""ip -n {name} link set eth0 address 52:54:00:12:34:56 up
                ip -n {name} addr add 10.0.2.15/24 dev eth0
                ip -n {name} -6 addr add fd77::15/64 nodad dev eth0
                ip -n {name} route add default via 10.0.2.2; ip -n {name} -6 route add default via fd77::2
                ip -n {name} -6 neigh add fd77::2 lladdr 52:55:0a:00:02:02 dev eth0""")
            for source, target in ((inner, outer), (outer, inner)):
                os.set_blocking(source, False)
                loop.add_reader(source, _pump, source, target)
            yield Guest(slot, netns, outer)
        finally:
            for fd in (inner, outer):
                loop.remove_reader(fd)
                os.close(fd)


def _pump(source: int, target: int) -> None:
    with contextlib.suppress(BlockingIOError, OSError):
        for _ in range(64):
            os.write(target, os.read(source, 65_600))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(
    *,
    target: str,
    port: int,
    source_mac: str = "52:54:00:12:34:56",
    source: str = "10.0.2.15",
    source_port: int = 4444,
    data: bytes = b"spoof",
) -> bytes:
    def mac(text: str) -> bytes:
        return bytes.fromhex(text.replace(":", ""))

    udp = struct.pack(">4H", source_port, port, 8 + len(data), 0) + data
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return mac("52:55:0a:00:02:02") + mac(source_mac) + b"\x08\x00" + head + udp
