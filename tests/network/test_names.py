"""Names: only those allowed exist, and only the addresses they have open up."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from firebrick.machine import HostError
from firebrick.machine.network.commands import list_nft, nft
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.leftovers import processes_in
from firebrick.machine.network.policy import Allow, NetworkPolicy
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.network.rules import name_set
from tests.network.world import ALLOWED, DNS, NAMED, NAMED_TOO, OTHER, PRIVATE, World, guest

NXDOMAIN, REFUSED = 3, 5
POLICY = NetworkPolicy(allow=(Allow("git.example.org", (80,)), Allow("*.pkg.example", (80,))))


async def test_only_allowed_names_resolve_and_only_their_addresses_open(world: World, pool: SlotPool, tmp_path):
    world.names |= {"git.example.org": [NAMED], "a.pkg.example": [NAMED_TOO], "evil.example.org": [OTHER]}
    async with (
        world.resolving(),
        world.serving(NAMED, NAMED_TOO, OTHER) as met,
        pool.slot(POLICY, tmp_path) as slot,
        guest(slot) as g,
    ):
        assert await g.is_dropped(NAMED)  # nobody has asked for it yet
        assert await g.resolve("git.example.org") == (0, [NAMED])
        assert await g.fetch(NAMED) == NAMED
        assert await g.is_dropped(NAMED, 81)
        assert await g.is_dropped(NAMED_TOO)
        assert await g.resolve("a.pkg.example") == (0, [NAMED_TOO])
        assert await g.fetch(NAMED_TOO) == NAMED_TOO
        for name in (
            "evil.example.org",
            "example.org",
            "x.git.example.org",
            "pkg.example",
            "notpkg.example",
            "com",
        ):
            code, addresses = await g.resolve(name)
            assert (code in (NXDOMAIN, REFUSED), addresses) == (True, []), name
        assert await g.is_dropped(OTHER)
    assert set(world.asked) == {"git.example.org", "a.pkg.example"}
    assert met == {NAMED: 1, NAMED_TOO: 1, OTHER: 0}


async def test_an_address_in_use_stays_open(world: World, pool: SlotPool, tmp_path):
    world.names["git.example.org"] = [NAMED]
    where = f"inet firebrick {name_set('git.example.org')}"
    async with world.resolving(), world.serving(NAMED), pool.slot(POLICY, tmp_path) as slot, guest(slot) as g:
        name = slot.seat.name
        await nft(f"add element {where} {{ {NAMED} timeout 1h expires 5s }}\n", inside=name)
        assert await g.fetch(NAMED) == NAMED
        [record] = [r["set"] for r in await list_nft("set", *where.split(), inside=name) if "set" in r]
        assert record["elem"][0]["elem"]["expires"] > 3500
        await nft(f"delete element {where} {{ {NAMED} }}\n", inside=name)
        assert await g.is_dropped(NAMED)


@pytest.mark.parametrize("address", [PRIVATE[0], "127.0.0.1", "169.254.169.254", "10.0.2.2"])
async def test_a_name_that_leads_inside_opens_nothing(world: World, pool: SlotPool, tmp_path, address):
    world.names["git.example.org"] = [address]
    async with world.resolving(), pool.slot(POLICY, tmp_path) as slot, guest(slot) as g:
        assert (await g.resolve("git.example.org"))[1] == []
        if address != "127.0.0.1":
            assert await g.is_dropped(address)


async def test_a_name_may_lead_into_a_private_network_that_is_allowed_and_into_no_other(world, pool, tmp_path):
    policy = NetworkPolicy(allow=(*POLICY.allow, Allow("10.1.0.0/16", (80,))))
    world.names |= {"git.example.org": [PRIVATE[0]], "a.pkg.example": [PRIVATE[2]]}
    async with (
        world.resolving(),
        world.serving(PRIVATE[0], PRIVATE[2]),
        pool.slot(policy, tmp_path) as slot,
        guest(slot) as g,
    ):
        assert (await g.resolve("git.example.org"))[1] == [PRIVATE[0]]
        assert await g.fetch(PRIVATE[0]) == PRIVATE[0]
        await g.resolve("a.pkg.example")
        assert await g.is_dropped(PRIVATE[2])


async def test_without_names_there_is_no_resolver(world: World, pool: SlotPool, tmp_path):
    policy = NetworkPolicy(allow=(Allow("0.0.0.0/0"),))
    world.names["git.example.org"] = [NAMED]
    async with world.resolving(), pool.slot(policy, tmp_path) as slot, guest(slot) as g:
        with pytest.raises(TimeoutError):
            await g.resolve("git.example.org", timeout=1)
    assert world.asked == []


async def test_a_name_that_stays_keeps_its_addresses_and_one_that_goes_loses_them(world, pool, tmp_path):
    world.names |= {"git.example.org": [NAMED], "a.pkg.example": [NAMED_TOO]}
    async with (
        world.resolving(),
        world.serving(NAMED, NAMED_TOO),
        pool.slot(POLICY, tmp_path) as slot,
        guest(slot) as g,
    ):
        await g.resolve("git.example.org")
        await g.resolve("a.pkg.example")
        before = await slot.counters()
        await slot.apply(NetworkPolicy(allow=POLICY.allow[:1]))
        assert await g.fetch(NAMED) == NAMED
        assert await g.is_dropped(NAMED_TOO)
        assert (await g.resolve("a.pkg.example"))[1] == []
        assert (await slot.counters()).egress_allowed.packets > before.egress_allowed.packets
        await slot.apply(NetworkPolicy())
        assert await g.is_dropped(NAMED)
        with pytest.raises(TimeoutError):
            await g.resolve("git.example.org", timeout=1)


async def test_the_guest_reaches_no_server_for_names_itself(world: World, pool: SlotPool, tmp_path):
    world.names["secret.example"] = [OTHER]
    async with world.resolving(), pool.slot(POLICY, tmp_path) as slot, guest(slot) as g:
        assert await g.is_dropped(DNS, 53)
    assert world.asked == []


async def test_the_resolver_that_dies_is_there_again(world: World, pool: SlotPool, tmp_path):
    world.names["git.example.org"] = [NAMED]
    async with world.resolving(), pool.slot(POLICY, tmp_path) as slot, guest(slot) as g:
        [first] = resolvers(slot)
        assert os.stat(f"/proc/{first}").st_uid == slot.addresses.resolver_uid
        status = Path(f"/proc/{first}/status").read_text()
        assert f"CapEff:\t{1 << 12:016x}" in status and f"CapBnd:\t{1 << 12:016x}" in status  # CAP_NET_ADMIN alone
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(10):
            while resolvers(slot) in ([], [first]):
                await asyncio.sleep(0.02)
            while True:
                try:
                    assert await g.resolve("git.example.org", timeout=0.3) == (0, [NAMED])
                    break
                except (TimeoutError, ConnectionError):
                    pass


async def test_a_host_without_servers_for_names_says_so(world: World, tmp_path):
    async with SlotPool(host=HostNetwork(range=world.host.range, upstreams=()), size=0) as pool:
        with pytest.raises(HostError, match="no server for names"):
            async with pool.slot(POLICY, tmp_path):
                pass
        async with pool.slot(NetworkPolicy(allow=(Allow(ALLOWED),)), tmp_path):
            pass


def resolvers(slot) -> list[int]:
    return processes_in(slot.netns)
