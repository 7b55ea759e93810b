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


LOOK = rf"""
ask() {{ exec 3<>/dev/tcp/{METADATA}/80; printf '%s\r\n' "$@" '' >&3; timeout 2 cat <&3 | sed '1,/^\r$/d'; }}
fetch() {{ timeout $2 bash -c "exec 3<>/dev/tcp/$1/80 && read -r line <&3 && echo \${{line%% *}}" || echo silence; }}
fetch {ALLOWED} 10
fetch {OTHER} 2
token=$(ask 'PUT /latest/api/token HTTP/1.0' 'X-metadata-token-ttl-seconds: 60')
ask 'GET /job HTTP/1.0' "X-metadata-token: $token" 'Accept: application/json'; echo
hostname -I
cat /etc/machine-id
"""
"""What a guest is reached by and reaches, a line each. It is one command: guests are slow here."""


async def look(m: Machine) -> list[str]:
    return (await m.run(["timeout", "60", "bash", "-c", LOOK])).stdout.decode().split()


async def test_machines_and_their_clones_reach_what_is_allowed_and_nothing_else(
    ground: Ground, world: World, tmp_path: Path, evidence: Evidence
) -> None:
    spec = MachineSpec(
        kernel=ground.kernel,
        initrd=ground.initrd,
        root=ground.root,
        kernel_args=ground.kernel_args,
        memory_mib=128,
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
            await check(m)
            assert met[OTHER] == 0
            taken = await m.snapshot(tmp_path / "taken")
            async with AsyncExitStack() as stack:
                restores = [machine.restore(taken, driver, home=tmp_path, deadline=DEADLINE_S) for _ in range(3)]
                clones = await asyncio.gather(*(stack.enter_async_context(each) for each in restores))
                fork = await stack.enter_async_context(m.fork())
                everyone = [m, *clones, fork]
                numbers += [slot_of(each).seat.number for each in everyone]
                assert len(set(numbers)) == 5
                said = [await check(each) for each in everyone]
                assert len({address for address, _ in said}) == 1
                assert len({machine_id for _, machine_id in said}) == 5
                await slot_of(fork).apply(NetworkPolicy())
                assert (await look(fork))[:2] == ["silence", "silence"]
                assert (await look(clones[0]))[:1] == [ALLOWED]
        assert met[OTHER] == 0
    assert [left_of(number) for number in numbers] == [[]] * 5
    assert not [name for number in numbers for name in Path("/run/netns").glob(f"fb{number}")]
    assert not [seat for seat in SEATS.iterdir() if seat.read_text().startswith(str(tmp_path))]


async def check(m: Machine) -> tuple[str, str]:
    """It sits in the seat of its slot and in no other, reaches what is allowed, is counted, and finds its metadata. Its address and machine-id."""
    slot = slot_of(m)
    kept = record.read(m.directory)
    assert kept is not None
    assert kept.seat == slot.seat.number
    mine = [seat.name for seat in SEATS.iterdir() if seat.read_text() == str(m.directory)]
    assert mine == [str(kept.seat)], "one seat, not two"
    assert Path(f"/proc/{m.pid}/ns/net").stat().st_ino == slot.netns.stat().st_ino
    before = await slot.counters()
    allowed, other, job, address, machine_id = await look(m)
    assert (allowed, other, job, address) == (ALLOWED, "silence", '"7"', "10.0.2.15")
    after = await slot.counters()
    assert after.egress_allowed.packets > before.egress_allowed.packets
    assert after.ingress_allowed.bytes > before.ingress_allowed.bytes
    assert after.egress_dropped.packets > before.egress_dropped.packets
    return address, machine_id
