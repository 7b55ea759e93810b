"""What a policy lets through, on real packets: a guest, a slot, a host and an internet."""

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager

import pytest

from firebrick.machine import HostError
from firebrick.machine.network.addresses import TAP, UPLINK
from firebrick.machine.network.commands import nft
from firebrick.machine.network.namespace import set_settings, visit
from firebrick.machine.network.policy import Allow, Forward, NetworkPolicy, Transport
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.network.rules import MOST_CONNECTIONS, MOST_QUESTIONS
from firebrick.machine.spec import RateLimit
from tests.network.world import ALLOWED, HOST, NEVER, OTHER, PRIVATE, V6, World, guest, sh, udp_frame

EVERYTHING = NetworkPolicy(allow=(Allow("0.0.0.0/0"),))
ONE = NetworkPolicy(allow=(Allow(f"{ALLOWED}/32", (80,)),))


async def test_what_is_allowed_passes_and_all_else_is_dropped_and_counted(world: World, pool: SlotPool, tmp_path):
    async with (
        world.serving(ALLOWED, OTHER) as met,
        world.serving(ALLOWED, port=81),
        pool.slot(ONE, tmp_path) as slot,
        guest(slot) as g,
    ):
        assert await g.fetch(ALLOWED) == ALLOWED
        assert await g.is_dropped(ALLOWED, 81)
        assert await g.is_dropped(OTHER)
        counters = await slot.counters()
    assert met == {ALLOWED: 1, OTHER: 0}
    assert counters.egress_allowed.packets >= 3 and counters.ingress_allowed.packets >= 2
    assert counters.ingress_allowed.bytes > len(ALLOWED) + 40


async def test_by_default_nothing_leaves(world: World, pool: SlotPool, tmp_path):
    async with world.serving(ALLOWED) as met, pool.slot(NetworkPolicy(), tmp_path) as slot, guest(slot) as g:
        assert await g.is_dropped(ALLOWED)
        assert await g.is_dropped("10.0.2.2")
        assert await g.is_dropped("10.0.2.3", 53)
        assert (await slot.counters()).egress_allowed.packets == 0
    assert met == {ALLOWED: 0}


@pytest.mark.parametrize("address", [*NEVER, *PRIVATE])
async def test_everything_does_not_mean_metadata_and_private_networks(world: World, pool: SlotPool, tmp_path, address):
    async with world.serving(address, OTHER) as met, pool.slot(EVERYTHING, tmp_path) as slot, guest(slot) as g:
        assert await g.fetch(OTHER) == OTHER
        assert await g.is_dropped(address)
    assert met[address] == 0


async def test_a_private_network_that_is_named_is_open(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(allow=(Allow("10.1.0.0/16", (80,)),))
    async with world.serving(*PRIVATE) as met, pool.slot(policy, tmp_path) as slot, guest(slot) as g:
        assert await g.fetch(PRIVATE[0]) == PRIVATE[0]
        for other in PRIVATE[1:]:
            assert await g.is_dropped(other)
    assert sum(met.values()) == 1


async def test_the_host_is_not_reached_at_any_of_its_addresses(world: World, pool: SlotPool, tmp_path):
    """The rules of the slot let the host's public address through where everything is allowed; the host's own do not."""
    met = []

    async def serve(_, writer):
        met.append(writer.get_extra_info("sockname"))
        writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 8000)
    async with server, pool.slot(EVERYTHING, tmp_path) as slot, guest(slot) as g:
        for address in ("10.0.2.2", str(slot.addresses.host), str(slot.addresses.peer)):
            assert await g.is_dropped(address, 8000)
        with pytest.raises(TimeoutError):
            async with g.connection(HOST, 8000, timeout=1.5):
                pass
    assert met == []


async def test_what_others_forward_at_the_host_is_not_reached(world: World, pool: SlotPool, tmp_path):
    """A container's published port is an address of the host that leads into a private network: neither is for a guest."""
    inside = PRIVATE[0]
    await nft(
        f"""table ip others {{ chain in {{ type nat hook prerouting priority dstnat; policy accept;
            ip daddr {HOST} tcp dport 8000 dnat to {inside}:80; }}; }}"""
    )
    async with world.serving(inside) as met, pool.slot(EVERYTHING, tmp_path) as slot, guest(slot) as g:
        with pytest.raises(TimeoutError):
            async with g.connection(HOST, 8000, timeout=1.5):
                pass
        assert met == {inside: 0}


async def test_one_slot_does_not_reach_another(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(allow=EVERYTHING.allow, forwards=(Forward(8080, 80),))
    async with (
        pool.slot(EVERYTHING, tmp_path) as one,
        pool.slot(policy, tmp_path) as two,
        guest(one) as a,
        guest(two) as b,
    ):
        listening = await b.socket()
        with listening:
            listening.bind(("10.0.2.15", 80))
            listening.listen()
            assert await a.is_dropped(str(two.addresses.peer), 80)
            assert await a.is_dropped(str(two.addresses.host), 80)
            # Even rules that let it out do not let it in: the host forwards nothing between slots.
            await nft("flush set inet firebrick never\nflush set inet firebrick private\n", inside=one.seat.name)
            with pytest.raises(TimeoutError):
                async with a.connection(str(two.addresses.peer), 80, timeout=1.5):
                    pass


async def test_nothing_of_ipv6_gets_through(world: World, pool: SlotPool, tmp_path):
    """It is switched off in the namespace; were it not, and were there a route, the rules would drop it, and count."""
    async with world.serving(V6) as met, pool.slot(EVERYTHING, tmp_path) as slot, guest(slot) as g:
        with pytest.raises((TimeoutError, OSError)):
            async with g.connection(V6, timeout=1):
                pass
        on = {f"ipv6/conf/{name}/disable_ipv6": "0" for name in ("all", "default", TAP, UPLINK)}
        await visit(slot.netns, lambda: set_settings(on | {"ipv6/conf/all/forwarding": "1"}))
        name = slot.seat.name
        sh(f"ip -n {name} -6 addr add fd77::2/64 nodad dev {TAP}; ip -n {name} -6 route add default dev {UPLINK}")
        assert await g.is_dropped(V6)
        assert met == {V6: 0}


@pytest.mark.parametrize(
    ("mac", "source"),
    [("52:54:00:12:34:57", "10.0.2.15"), ("52:54:00:12:34:56", "10.0.2.16"), ("52:54:00:12:34:56", HOST)],
)
async def test_a_spoofed_source_is_dropped(world: World, pool: SlotPool, tmp_path, mac, source):
    heard = await world.socket(OTHER, 4000, socket.SOCK_DGRAM)
    heard.setblocking(False)
    with heard:
        async with pool.slot(EVERYTHING, tmp_path) as slot, guest(slot) as g:
            loop = asyncio.get_running_loop()
            before = await slot.counters()
            g.send_frame(udp_frame(source_mac=mac, source=source, target=OTHER, port=4000, data=b"spoofed!"))
            g.send_frame(
                udp_frame(source_mac="52:54:00:12:34:56", source="10.0.2.15", target=OTHER, port=4000, data=b"honest!!")
            )
            async with asyncio.timeout(5):
                assert await loop.sock_recv(heard, 100) == b"honest!!"
            after = await slot.counters()
            assert after.egress_dropped.packets > before.egress_dropped.packets


async def test_a_policy_is_changed_while_connections_go_on(world: World, pool: SlotPool, tmp_path):
    both = NetworkPolicy(allow=(Allow(f"{ALLOWED}/32", (80,)), Allow(f"{OTHER}/32", (80,))))
    async with (
        world.serving(ALLOWED, OTHER),
        pool.slot(both, tmp_path) as slot,
        guest(slot) as g,
        g.connection(ALLOWED) as (reader, writer),
        g.connection(OTHER) as (reader2, writer2),
    ):
        for each in (reader, reader2):
            await each.readline()
        before = await slot.counters()
        await slot.apply(ONE)
        writer.write(b"still there\n")
        assert await asyncio.wait_for(reader.readline(), 5) == b"still there\n"
        writer2.write(b"not any more\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader2.readline(), 1.5)
        assert await g.is_dropped(OTHER)
        after = await slot.counters()
        assert after.egress_allowed.packets > before.egress_allowed.packets
        await slot.apply(both)  # what was held up comes through: TCP tries again
        assert await asyncio.wait_for(reader2.readline(), 20) == b"not any more\n"


async def test_a_download_survives_a_change_that_does_not_concern_it(world: World, pool: SlotPool, tmp_path):
    """The other end talks, the guest does not: its packets are judged by where the guest connected to."""
    push = asyncio.Event()

    async def serve(_, writer):
        await push.wait()
        writer.write(b"pushed\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, sock=await world.socket(ALLOWED, 80))
    async with server, pool.slot(ONE, tmp_path) as slot, guest(slot) as g, g.connection(ALLOWED) as (reader, _):
        await slot.apply(NetworkPolicy(allow=(*ONE.allow, Allow("9.1.0.0/16"))))
        push.set()
        assert await asyncio.wait_for(reader.readline(), 3) == b"pushed\n"


@pytest.mark.parametrize("address", ["127.0.0.1", HOST])
async def test_a_forward_reaches_the_guest_from_the_host(world: World, pool: SlotPool, tmp_path, address):
    policy = NetworkPolicy(forwards=(Forward(8080, 80, address=address),))
    async with pool.slot(policy, tmp_path) as slot, guest(slot) as g:
        async with served(g):
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, 8080), 5)
            assert await reader.readline() == b"hello of the guest\n"
            writer.close()
        assert (await slot.counters()).ingress_allowed.packets > 0


async def test_a_forward_reaches_the_guest_from_outside_and_only_its_port(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(forwards=(Forward(8080, 80, address=HOST),))
    async with pool.slot(policy, tmp_path) as slot, guest(slot) as g, served(g):
        sock = await visit(world.internet, socket.socket)
        sock.setblocking(False)
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (HOST, 8080)), 5)
        reader, writer = await asyncio.open_connection(sock=sock)
        assert await reader.readline() == b"hello of the guest\n"
        writer.close()
        before = (await slot.counters()).ingress_dropped.packets
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.open_connection(str(slot.addresses.peer), 81), 1.5)
        assert (await slot.counters()).ingress_dropped.packets > before


async def test_who_gets_a_seat_hears_nothing_of_connections_of_the_one_before(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(forwards=(Forward(8080, 80, address=HOST),))
    async with contextlib.AsyncExitStack() as before:
        slot = await before.enter_async_context(pool.slot(policy, tmp_path))
        g = await before.enter_async_context(guest(slot))
        await before.enter_async_context(served(g))
        sock = await visit(world.internet, socket.socket)
        sock.setblocking(False)
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (HOST, 8080)), 5)
        reader, writer = await asyncio.open_connection(sock=sock)
        assert await reader.readline() == b"hello of the guest\n"
        seat = slot.seat
        # It has gone without a word to the other end, as a killed machine does.
        await nft("flush chain inet firebrick between\n", inside=seat.name)
    async with asyncio.timeout(10):
        while pool._stock._removals:
            await asyncio.sleep(0.01)
    async with pool.slot(policy, tmp_path) as slot, guest(slot):
        assert slot.seat.number == seat.number
        writer.write(b"a secret of somebody\n")
        async with asyncio.timeout(10):
            while (counted := await slot.counters()).ingress_dropped.packets == 0:
                assert counted.ingress_allowed.packets == 0
                await asyncio.sleep(0.05)
        assert counted.ingress_allowed.packets == 0
    writer.transport.abort()


async def test_a_forward_of_datagrams(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(forwards=(Forward(5353, 53, Transport.UDP),))
    loop = asyncio.get_running_loop()
    async with pool.slot(policy, tmp_path) as slot, guest(slot) as g:
        inner = await g.socket(socket.SOCK_DGRAM)
        with inner, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer:
            outer.setblocking(False)
            inner.bind(("10.0.2.15", 53))
            outer.connect(("127.0.0.1", 5353))
            outer.send(b"ask")
            data, peer = await asyncio.wait_for(loop.sock_recvfrom(inner, 100), 5)
            await loop.sock_sendto(inner, data + b"ed", peer)
            assert await asyncio.wait_for(loop.sock_recv(outer, 100), 5) == b"asked"


async def test_a_port_that_is_taken_is_told_and_leaves_nothing_open(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(allow=EVERYTHING.allow, forwards=(Forward(8081, 80), Forward(8080, 80)))
    with (
        socket.create_server(("127.0.0.1", 8080)),
        pytest.raises(HostError, match="cannot forward tcp port 8080 of 127.0.0.1: Address already in use"),
    ):
        async with pool.slot(policy, tmp_path):
            pass
    async with pool.slot(policy, tmp_path) as one:
        async with pool.slot(EVERYTHING, tmp_path) as two, guest(two) as g, world.serving(OTHER):
            assert await g.fetch(OTHER) == OTHER
            with pytest.raises(HostError):
                await two.apply(policy)
            assert await g.is_dropped(OTHER)
        await one.apply(NetworkPolicy())
        async with pool.slot(policy, tmp_path):
            pass


@asynccontextmanager
async def served(g):
    async def serve(_, writer):
        writer.write(b"hello of the guest\n")
        await writer.drain()
        writer.close()

    sock = await g.socket()
    sock.bind(("10.0.2.15", 80))
    async with await asyncio.start_server(serve, sock=sock):
        yield


async def test_a_rate_holds_in_both_directions(world: World, pool: SlotPool, tmp_path):
    rate, size = 200_000, 100_000
    async with world.serving(ALLOWED), pool.slot(ONE, tmp_path) as slot, guest(slot) as g:
        await slot.limit(RateLimit(bytes_per_s=rate))
        async with g.connection(ALLOWED) as (reader, writer):
            await reader.readline()
            began = asyncio.get_running_loop().time()
            writer.write((b"x" * 999 + b"\n") * (size // 1000))  # there, and back
            async with asyncio.timeout(20):
                await reader.readexactly(size)
        assert asyncio.get_running_loop().time() - began > 0.8 * (size - (16 << 10)) / rate


async def test_one_guest_does_not_fill_it_with_questions_either(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(allow=(Allow("example.org"),))
    async with pool.slot(policy, tmp_path) as slot, guest(slot) as g:
        before = await slot.counters()
        for number in range(MOST_QUESTIONS + 500):
            g.send_frame(udp_frame(target="10.0.2.3", port=53, source_port=10_000 + number))
        after = await slot.counters()
        assert after.egress_dropped.packets - before.egress_dropped.packets >= 500


async def test_one_guest_does_not_fill_the_hosts_table_of_connections(world: World, pool: SlotPool, tmp_path):
    async with pool.slot(EVERYTHING, tmp_path) as slot, guest(slot) as g:
        before = await slot.counters()
        for number in range(MOST_CONNECTIONS + 500):
            g.send_frame(udp_frame(target=OTHER, port=9, source_port=10_000 + number))
        after = await slot.counters()
    assert after.egress_allowed.packets - before.egress_allowed.packets <= MOST_CONNECTIONS
    assert after.egress_dropped.packets - before.egress_dropped.packets >= 500
