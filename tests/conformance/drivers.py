"""The drivers of the corpus by name: `fake`, `qemu`, `jailed` (QEMU in a jail), `firecracker` and `firecracker-jailed`. Jails need root."""

from __future__ import annotations

import os
from pathlib import Path

from firebrick.machine import Driver, Fake, Firecracker, FirecrackerSettings, Qemu
from firebrick.machine.jail.bubble import Bubble
from firebrick.machine.jail.jailer import Jailer
from firebrick.machine.seat import Seats
from lab.ground import Ground

ALWAYS = ("fake", "qemu")
SOMETIMES = ("jailed",) if os.geteuid() == 0 else ()
"""In the tests marked `every_way` alone, unless they are asked for."""

DETACHES = ("fake", "qemu", "firecracker", "firecracker-jailed")
"""Those whose machines can outlive their process."""


def driver_of(name: str, home: Path) -> Driver:
    """Raises NoGroundError for Firecracker where this is no lab."""
    cache = home / "cache"
    if name == "fake":
        return Fake()
    if name in ("qemu", "jailed"):
        return Qemu(cache, rooms=Bubble() if name == "jailed" else None)
    if name not in ("firecracker", "firecracker-jailed"):
        raise ValueError(name)
    ground = Ground.find()
    settings = FirecrackerSettings(binary=str(ground.firecracker))
    if name == "firecracker":
        return Firecracker(cache, settings, track_dirty_pages=True)
    rooms = Jailer(ground.firecracker, ground.jailer)
    return Firecracker(cache, settings, rooms=rooms, seats=Seats(), track_dirty_pages=True)


def kind_of(name: str) -> str:
    """Whose snapshots it restores: a jail is no difference."""
    return {"jailed": "qemu", "firecracker-jailed": "firecracker"}.get(name, name)
