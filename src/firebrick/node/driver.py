"""The driver of a node, with the jail and the networks its settings ask for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from firebrick.home import Home
from firebrick.machine import Allow, Driver, Firecracker, FirecrackerSettings, Network, NetworkPolicy, Qemu, Transport
from firebrick.machine.jail.bubble import Bubble
from firebrick.machine.jail.jailer import Jailer
from firebrick.machine.network.pool import SlotPool
from firebrick.machine.pager import serving
from firebrick.machine.seat import Seats
from firebrick.node.errors import NodeError
from firebrick.node.settings import DriverName, NodeSettings
from firebrick.process import find_program

Warn = Callable[[str], None]


@asynccontextmanager
async def open_driver(home: Home, settings: NodeSettings, warn: Warn = lambda _: None) -> AsyncIterator[Driver]:
    """The driver, and what it takes machines' networks from, as long as the context. `warn` is told what a production host would not do.

    Raises NodeError for what this user or this host cannot do, HostError where it lacks something."""
    check_privileges(settings)
    async with AsyncExitStack() as stack:
        seats = Seats()
        network = None
        if network_kind(settings) is Network.NAMESPACE:
            network = await stack.enter_async_context(SlotPool(seats, size=settings.slots, policy=policy_of(settings)))
        if settings.driver is DriverName.QEMU:
            yield Qemu(home.cache, rooms=Bubble() if settings.jailed else None, seats=seats, network=network)
            return
        told = FirecrackerSettings.from_environment()
        if not settings.jailed:
            warn(
                "Firecracker runs without its jail, as this user: that is for development, not for work nobody trusts."
            )
        yield Firecracker(
            home.cache,
            told,
            rooms=Jailer(_program(told.binary), _program(told.jailer)) if settings.jailed else None,
            seats=seats if settings.jailed else None,
            network=network,
            pager=serving if settings.page_server else None,
        )


def network_kind(settings: NodeSettings) -> Network:
    """What a job gets that is to have a network: a namespace of its own wherever the node can make one."""
    separate = settings.driver is DriverName.FIRECRACKER or settings.jailed
    return Network.NAMESPACE if separate and os.geteuid() == 0 else Network.USER


def policy_of(settings: NodeSettings) -> NetworkPolicy:
    """What jobs may reach. Raises SpecError for an entry that names nothing that can be reached."""
    return NetworkPolicy(allow=tuple(Allow(e.to, e.ports, Transport(e.transport)) for e in settings.allow))


def check_privileges(settings: NodeSettings) -> None:
    """Raises NodeError where the settings ask for what only root can do."""
    if settings.jailed and os.geteuid() != 0:
        raise NodeError(
            f"cannot jail machines of {settings.driver} as this user: only root can make jails",
            hint="Run as root; or, for development, say --no-jail.",
        )


def _program(name: str) -> Path:
    found = find_program(name)
    if found is None:
        raise NodeError(
            f"cannot start machines under Firecracker: there is no program {name}",
            hint="Install Firecracker's release, its jailer beside it, and name it in MICROVM_FIRECRACKER_BIN. `firebrick doctor` says more.",
        )
    return Path(found)
