"""The driver library: microVMs from Python.

async with machine.launch(spec) as m:
    done = await m.run(["uname", "-a"], check=True)
    async with m.fork() as copy: ...

A driver is imported when it is asked for: who runs machines under one does not wait for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from firebrick.machine.accel import Accelerator
from firebrick.machine.adoption import adopt
from firebrick.machine.driver import Baseline, Driver, Exit, ExitCause, HostUsage, VirtualMachine
from firebrick.machine.errors import (
    AdoptionError,
    BootError,
    HostError,
    MachineError,
    MachineGoneError,
    SnapshotError,
    SpecError,
    StateError,
)
from firebrick.machine.launching import launch
from firebrick.machine.machine import Machine, Usage
from firebrick.machine.network.policy import Allow, Forward, NetworkPolicy, Transport
from firebrick.machine.owner import adoptable, reap
from firebrick.machine.restoring import restore
from firebrick.machine.snapshot import Snapshot
from firebrick.machine.spec import Balloon, Cache, Drive, IoEngine, MachineSpec, Network, RateLimit
from firebrick.machine.standby import Standby, standby
from firebrick.machine.state import State

if TYPE_CHECKING:
    from firebrick.machine.fake import Fake, Faults
    from firebrick.machine.firecracker import Firecracker, FirecrackerMachine, FirecrackerSettings
    from firebrick.machine.qemu import Qemu
else:
    _DRIVERS = {
        "Fake": "fake",
        "Faults": "fake",
        "Firecracker": "firecracker",
        "FirecrackerMachine": "firecracker",
        "FirecrackerSettings": "firecracker",
        "Qemu": "qemu",
    }

    def __getattr__(name: str) -> object:
        if name not in _DRIVERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_DRIVERS[name]}"), name)


__all__ = [
    "Accelerator",
    "AdoptionError",
    "Allow",
    "Balloon",
    "Baseline",
    "BootError",
    "Cache",
    "Drive",
    "Driver",
    "Exit",
    "ExitCause",
    "Fake",
    "Faults",
    "Firecracker",
    "FirecrackerMachine",
    "FirecrackerSettings",
    "Forward",
    "HostError",
    "HostUsage",
    "IoEngine",
    "Machine",
    "MachineError",
    "MachineGoneError",
    "MachineSpec",
    "Network",
    "NetworkPolicy",
    "Qemu",
    "RateLimit",
    "Snapshot",
    "SnapshotError",
    "SpecError",
    "Standby",
    "State",
    "StateError",
    "Transport",
    "Usage",
    "VirtualMachine",
    "adopt",
    "adoptable",
    "launch",
    "reap",
    "restore",
    "standby",
]
