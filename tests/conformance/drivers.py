"""The drivers of the corpus by name: `fake`, `qemu`, `jailed` (QEMU in a jail), `firecracker`, `firecracker-jailed`, and `firecracker-networked`: jailed,
each machine in a network namespace of its own, as in production. Jails and namespaces need root."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from firebrick.machine import Driver, Fake, Firecracker, FirecrackerSettings, Qemu
from firebrick.machine.jail.bubble import Bubble
from firebrick.machine.jail.jailer import Jailer
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.policy import NetworkPolicy
from firebrick.machine.network.slot import Slot, opened
from firebrick.machine.seat import Seats
from firebrick.machine.spec import MachineSpec, Network
from lab.ground import Ground

ALWAYS = ("fake", "qemu")
SOMETIMES = ("jailed",) if os.geteuid() == 0 else ()
"""In the tests marked `every_way` and `detaching` alone, unless they are asked for."""

NETWORKED = "firecracker-networked"
OF_FIRECRACKER = ("firecracker", "firecracker-jailed", NETWORKED)

DETACHES = ("fake", "qemu", "jailed", "firecracker", "firecracker-jailed")
"""Those whose machines can outlive their process."""


def driver_of(name: str, home: Path) -> Driver:
    """Raises NoGroundError for Firecracker where this is no lab."""
    cache = home / "cache"
    if name == "fake":
        return Fake()
    if name in ("qemu", "jailed"):
        return Qemu(cache, rooms=Bubble() if name == "jailed" else None)
    if name not in OF_FIRECRACKER:
        raise ValueError(name)
    ground = Ground.find()
    settings = FirecrackerSettings(binary=str(ground.firecracker))
    if name == "firecracker":
        return Firecracker(cache, settings, track_dirty_pages=True)
    rooms = Jailer(ground.firecracker, ground.jailer)
    network = OneByOne() if name == NETWORKED else None
    return Firecracker(cache, settings, rooms=rooms, seats=Seats(), network=network, track_dirty_pages=True)


class OneByOne:
    """Slots that are made when they are wanted: a test that ends in the middle of it is to be told where it was."""

    @asynccontextmanager
    async def slot(self, policy: NetworkPolicy, occupant: Path) -> AsyncIterator[Slot]:
        host = HostNetwork()
        async with host.ready():
            with Seats().take(occupant) as seat:
                async with opened(seat, host) as slot:
                    await slot.apply(policy)
                    yield slot


def spec_for(name: str, spec: MachineSpec) -> MachineSpec:
    """`spec` as this driver's machines have it."""
    return replace(spec, network=Network.NAMESPACE) if name == NETWORKED else spec


def kind_of(name: str) -> str:
    """Whose snapshots it restores: a jail is no difference, a network device is."""
    return {"jailed": "qemu", "firecracker-jailed": "firecracker"}.get(name, name)


def is_firecracker(name: str) -> bool:
    return name in OF_FIRECRACKER
