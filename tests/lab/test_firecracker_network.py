"""Jailed machines under Firecracker with networks of their own, on real packets: what they reach, and that clones need no addresses of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import (
    Firecracker,
    FirecrackerMachine,
    FirecrackerSettings,
    Machine,
    MachineSpec,
    Network,
    RateLimit,
)
from firebrick.machine.jail import record
from firebrick.machine.jail.jailer import Jailer
from firebrick.machine.network.policy import Allow, NetworkPolicy
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.network.slot import Slot
from firebrick.machine.seat import SEATS, Seats
from lab.ground import Ground
from tests.lab.conftest import Evidence
from tests.lab.test_jail import left_of
from tests.network import world as worlds
from tests.network.world import ALLOWED, OTHER, World

DEADLINE_S = 120.0
POLICY = NetworkPolicy(allow=(Allow(f"{ALLOWED}/32", (80,)),))
METADATA = "169.254.169.254"


@pytest.fixture
def world() -> Iterator[World]:
    with worlds.world() as made:
        yield made


def slot_of(m: Machine) -> Slot:
    assert isinstance(m.vm, FirecrackerMachine)
    assert m.vm.slot is not None
    return m.vm.slot


async def bash(m: Machine, script: str, seconds: int = 20) -> str:
    return (await m.run(["timeout", str(seconds), "bash", "-c", script])).stdout.decode()


async def first_line(m: Machine, address: str, seconds: int = 20) -> str:
    """What the server at this address says; empty where it is not reached in time."""
    script = f"exec 3<>/dev/tcp/{address}/80 && read -r line <&3 && echo $line"
    return (await bash(m, script, seconds)).partition(" ")[0]


async def http(m: Machine, request: str, *headers: str) -> str:
    """The body of the metadata service's answer to a guest."""
    head = "\\r\\n".join([f"{request} HTTP/1.0", f"Host: {METADATA}", *headers, "", ""])
    script = f"exec 3<>/dev/tcp/{METADATA}/80 && printf '{head}' >&3 && timeout 2 cat <&3"
    return (await bash(m, script)).partition("\r\n\r\n")[2].strip()


async def metadata(m: Machine, path: str) -> str:
    token = await http(m, "PUT /latest/api/token", "X-metadata-token-ttl-seconds: 60")
    return await http(m, f"GET {path}", f"X-metadata-token: {token}", "Accept: application/json")


async def test_machines_and_their_clones_reach_what_is_allowed_and_nothing_else(
    ground: Ground, world: World, tmp_path: Path, evidence: Evidence
) -> None:
    spec = MachineSpec(
        kernel=ground.kernel,
        initrd=ground.initrd,
        root=ground.root,
        kernel_args=ground.kernel_args,
        memory_mib=192,
        scratch_mib=64,
        network=Network.NAMESPACE,
        policy=POLICY,
        network_rate=RateLimit(bytes_per_s=4 << 20),
        metadata={"job": "7"},
    )
    numbers: list[int] = []
    async with world.serving(ALLOWED, OTHER) as met, SlotPool(host=world.host, size=3) as pool:
        settings = FirecrackerSettings(binary=str(ground.firecracker))
        rooms = Jailer(ground.firecracker, ground.jailer)
        driver = Firecracker(tmp_path / "cache", settings, rooms=rooms, seats=Seats(), network=pool)
        async with machine.launch(spec, driver, home=tmp_path, deadline=DEADLINE_S) as m:
            evidence.add("console.txt", m.console)
            await check(m, tmp_path)
            assert met[OTHER] == 0
            taken = await m.snapshot(tmp_path / "taken")
            async with AsyncExitStack() as stack:
                restores = [machine.restore(taken, driver, home=tmp_path, deadline=DEADLINE_S) for _ in range(3)]
                clones = await asyncio.gather(*(stack.enter_async_context(each) for each in restores))
                fork = await stack.enter_async_context(m.fork())
                everyone = [m, *clones, fork]
                numbers += [slot_of(each).seat.number for each in everyone]
                assert len(set(numbers)) == 5
                await asyncio.gather(*(check(each, tmp_path) for each in everyone))
                assert len({await bash(each, "hostname -I") for each in everyone}) == 1
                assert len({await bash(each, "cat /etc/machine-id") for each in everyone}) == 5
                await slot_of(fork).apply(NetworkPolicy())
                assert await first_line(fork, ALLOWED, 2) == ""
                assert await first_line(clones[0], ALLOWED) == ALLOWED
        assert met[OTHER] == 0
    assert [left_of(number) for number in numbers] == [[]] * 5
    assert not [name for number in numbers for name in Path("/run/netns").glob(f"fb{number}")]
    assert not [seat for seat in SEATS.iterdir() if seat.read_text().startswith(str(tmp_path))]


async def check(m: Machine, home: Path) -> None:
    """It sits in the seat of its slot and in no other, reaches what is allowed, is counted, and finds its metadata."""
    slot = slot_of(m)
    kept = record.read(m.directory)
    assert kept is not None
    assert kept.seat == slot.seat.number
    mine = [seat.name for seat in SEATS.iterdir() if seat.read_text() == str(m.directory)]
    assert mine == [str(kept.seat)], "one seat, not two"
    assert Path(f"/proc/{m.pid}/ns/net").stat().st_ino == slot.netns.stat().st_ino
    before = await slot.counters()
    assert await first_line(m, ALLOWED) == ALLOWED
    assert await first_line(m, OTHER, 2) == ""
    after = await slot.counters()
    assert after.egress_allowed.packets > before.egress_allowed.packets
    assert after.ingress_allowed.bytes > before.ingress_allowed.bytes
    assert after.egress_dropped.packets > before.egress_dropped.packets
    assert await metadata(m, "/job") == '"7"'
