"""Slots come and go: how fast, and that nothing is left of them, however their owner ends."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebrick.machine.network import forwarding
from firebrick.machine.network.commands import list_nft
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.leftovers import processes_in, sweep
from firebrick.machine.network.policy import Allow, Forward, NetworkPolicy
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.network.slot import opened
from firebrick.machine.seat import SEATS, Seats
from tests.leak import Belongings, _reap_orphans
from tests.network.world import World, own_network, sh

POLICY = NetworkPolicy(allow=(Allow("9.9.9.0/24", (80, 443)),))
NAMES = NetworkPolicy(allow=(Allow("git.example.org", (443,)),), forwards=(Forward(8080, 80),))


def left() -> set[str]:
    links = {name for _, name in socket.if_nameindex() if name.startswith("fb")}
    tables = {line.strip() for line in sh("nft list tables").splitlines()}
    return links | tables | {path.name for path in Path("/run/netns").iterdir() if path.name.startswith("fb")}


async def test_all_is_gone_in_the_end(world: World, tmp_path):
    before = left()
    async with SlotPool(host=world.host, size=3) as pool:
        await pool.full()
        assert pool.ready == 3
        async with pool.slot(NAMES, tmp_path) as slot:
            assert slot.netns.exists()
            assert {"table inet firebrick", slot.seat.name} <= left()
            await pool.full()
        assert pool.ready == 3
    assert left() == before


async def test_a_taken_slot_says_whose_it_is(world: World, tmp_path):
    async with SlotPool(host=world.host, size=1) as pool:
        await pool.full()
        async with pool.slot(POLICY, tmp_path / "machine") as slot:
            file = SEATS / str(slot.seat.number)
            assert file.read_bytes() == os.fsencode(tmp_path / "machine")
    assert file.read_bytes() == b""


async def test_the_tap_is_for_the_user_of_the_seat_alone(world: World, pool: SlotPool, tmp_path):
    async with pool.slot(POLICY, tmp_path) as slot:

        def as_user(uid: int):
            keep = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
            inside = ["nsenter", f"--net={slot.netns}", "setpriv", *keep, "/usr/bin/python3", "-c"]
            script = "import fcntl,os,struct;fcntl.ioctl(os.open('/dev/net/tun',os.O_RDWR),0x400454ca,struct.pack('16sH22x',b'tap0',0x5002))"
            return subprocess.run([*inside, script], check=False, capture_output=True, text=True)

        assert as_user(slot.seat.uid).stderr == ""
        assert "not permitted" in as_user(slot.seat.uid + 1).stderr


async def test_fifty_slots_and_what_a_pool_saves(world: World, tmp_path, record_property):
    before = left()
    async with SlotPool(host=world.host, size=0) as pool:
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            for _ in range(50):
                await stack.enter_async_context(pool.slot(POLICY, tmp_path))
            made = (time.monotonic() - began) / 50
            addresses = {name for name in left() if name.startswith("fb")}
            assert len(addresses) >= 50
            began = time.monotonic()
        released = (time.monotonic() - began) / 50
    removed = (time.monotonic() - began) / 50
    async with SlotPool(host=world.host, size=10) as pool, AsyncExitStack() as stack:
        await pool.full()
        began = time.monotonic()
        for _ in range(5):
            await stack.enter_async_context(pool.slot(POLICY, tmp_path))
        taken = (time.monotonic() - began) / 5
    async with SlotPool(host=world.host, size=10, policy=POLICY) as pool, AsyncExitStack() as stack:
        await pool.full()
        began = time.monotonic()
        for _ in range(5):
            await stack.enter_async_context(pool.slot(POLICY, tmp_path))
        at_once = (time.monotonic() - began) / 5
    assert left() == before
    figures = {
        "made": made,
        "taken": taken,
        "taken with the pool's policy": at_once,
        "released": released,
        "removed": removed,
    }
    for name, seconds in figures.items():
        record_property(name, f"{1000 * seconds:.1f} ms")
    assert at_once < taken < made


async def test_another_slot_is_made_once_the_taker_has_had_time_to_start(world: World, tmp_path):
    async with SlotPool(host=world.host, size=4) as pool:
        await pool.full()
        began = time.monotonic()
        async with pool.slot(POLICY, tmp_path):
            await pool.full()
            assert pool.ready == 4
            assert time.monotonic() - began > 0.5


async def test_many_take_at_once_and_each_has_its_own(world: World, tmp_path):
    async with SlotPool(host=world.host, size=2) as pool:

        async def one() -> int:
            async with pool.slot(POLICY, tmp_path) as slot:
                await asyncio.sleep(0.05)
                return slot.seat.number

        numbers = await asyncio.gather(*(one() for _ in range(12)))
    assert len(numbers) == 12


async def test_cancelled_at_any_moment_it_leaves_nothing(world: World, tmp_path):
    before, chance = left(), random.Random(3)

    async def life() -> None:
        async with SlotPool(host=world.host, size=2) as pool, pool.slot(NAMES, tmp_path) as slot:
            await slot.counters()
            os.close(await slot.open_tap())
            await slot.apply(POLICY)

    for _ in range(25):
        task = asyncio.create_task(life())
        await asyncio.wait([task], timeout=chance.uniform(0, 0.4))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None, task
        assert left() == before


OWNER = """
import asyncio, sys
from ipaddress import IPv4Address
from pathlib import Path
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.policy import Allow, Forward, NetworkPolicy
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.network.slot import opened
policy = NetworkPolicy(allow=(Allow("git.example.org", (443,)),), forwards=(Forward(8080, 80),))
async def main():
    directory = Path(sys.argv[1])
    host = HostNetwork(upstreams=(IPv4Address("9.0.0.53"),), lock=directory / "lock")
    async with SlotPool(host=host, size=2) as pool, pool.slot(policy, directory / "machine") as slot:
        await pool.full()
        print(slot.seat.name, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@dataclass(frozen=True)
class Killed:
    """A slot whose owner was killed, beside others that were ready; `before` is what there was before it."""

    slot: str
    before: set[str]
    host: HostNetwork


@pytest.fixture
def killed(world: World, tmp_path) -> Killed:
    before = left()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    name = owner.stdout.readline().strip()
    assert name
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    return Killed(name, before, HostNetwork(upstreams=world.host.upstreams, lock=tmp_path / "lock"))


async def test_a_killed_owner_leaves_nothing_that_is_not_swept(killed: Killed):
    assert {killed.slot, "table inet firebrick"} <= left()
    async with asyncio.timeout(5):  # the resolver dies with its owner, without anybody's help
        while processes_in(Path("/run/netns", killed.slot)):
            await asyncio.sleep(0.01)
    assert killed.slot in await sweep(Seats(), killed.host)
    assert left() == killed.before


async def test_an_owner_killed_at_any_moment_leaves_nothing_that_is_not_swept(world: World, tmp_path):
    before, chance, ours = left(), random.Random(11), set(Belongings.now().processes)
    host = HostNetwork(upstreams=world.host.upstreams, lock=tmp_path / "lock")
    for _ in range(10):
        owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.DEVNULL)
        async with asyncio.timeout(20):  # it has begun: what it does first is the lock
            while not host.lock.exists():
                await asyncio.sleep(0.001)
        await asyncio.sleep(chance.uniform(0, 0.3))
        owner.kill()
        owner.wait()
        async with asyncio.timeout(
            10
        ):  # a command it had just started may come to its end after a sweep; the next one sees to it
            while left() != before or Belongings.now().processes.keys() - ours:
                await sweep(Seats(), host)
                _reap_orphans()
                await asyncio.sleep(0.01)
        host.lock.unlink()


async def test_a_seat_is_cleared_when_it_is_taken_again(killed: Killed):
    """Also of a process that has outlived its owner, and of the ports that led there."""
    stray = subprocess.Popen(["nsenter", f"--net=/run/netns/{killed.slot}", "sleep", "600"])
    seats = Seats()
    async with killed.host.ready():
        assert len(await forwards()) == 1
        with ExitStack() as stack:
            while (seat := stack.enter_context(seats.take())).name != killed.slot:
                pass
            async with opened(seat, killed.host) as slot:
                assert await forwards() == []
                assert await asyncio.to_thread(stray.wait, 5) == -signal.SIGKILL
                assert (await slot.counters()).egress_dropped.packets == 0
        await sweep(seats, killed.host)
    assert left() == killed.before


async def test_the_sweep_leaves_alone_what_is_in_use(world: World, tmp_path):
    async with SlotPool(host=world.host, size=1) as pool, pool.slot(POLICY, tmp_path) as slot:
        await pool.full()
        there = left()
        assert slot.seat.name not in await sweep(Seats(), world.host)
        assert left() == there


async def forwards() -> list[object]:
    records = await list_nft("map", "inet", "firebrick", "forwards")
    return [entry for record in records for entry in record.get("map", {}).get("elem", [])]


def is_forwarding() -> bool:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


async def test_the_host_forwards_as_long_as_it_must(tmp_path):
    redirects = Path("/proc/sys/net/ipv4/conf/all/accept_redirects")
    with own_network():
        redirects.write_text("0")
        one, other = (HostNetwork(upstreams=(), lock=tmp_path / "lock") for _ in range(2))
        async with one.ready():
            assert is_forwarding()
            async with other.ready():
                assert is_forwarding()
            assert is_forwarding()
        assert not is_forwarding()
        assert redirects.read_text() == "0\n"
        assert [file.name for file in tmp_path.iterdir()] == ["lock"]


async def test_forwarding_that_was_on_stays_on(tmp_path):
    with own_network():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        async with HostNetwork(upstreams=(), lock=tmp_path / "lock").ready():
            assert is_forwarding()
        assert is_forwarding()


async def test_forwarding_stays_on_where_somebody_else_counts_on_it(tmp_path):
    with own_network():
        host = HostNetwork(upstreams=(), lock=tmp_path / "lock")
        async with host.ready():
            sh("nft add table ip other; nft add chain ip other forward '{ type filter hook forward priority 0; }'")
        assert is_forwarding()
        sh("nft delete table ip other")
        await host.sweep()
        assert is_forwarding(), "whoever came found it on"


async def test_forwarding_a_killed_process_has_switched_on_is_put_back(tmp_path):
    with own_network():
        host = HostNetwork(upstreams=(), lock=tmp_path / "lock")
        forwarding.switch_on(tmp_path / "lock.forwarding")
        assert is_forwarding()
        await host.sweep()
        assert not is_forwarding()
    with own_network():
        forwarding.switch_on(tmp_path / "lock.forwarding")
    with own_network():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        await host.sweep()
        assert is_forwarding(), "this is another host"
