"""The driver of a node, with the jail and the networks its settings ask for. What it is not asked for is not imported."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from firebrick.home import Home
from firebrick.machine import Allow, Driver, Network, NetworkPolicy, Transport
from firebrick.machine.seat import Seats
from firebrick.node.errors import NodeError
from firebrick.node.settings import DriverName, NodeSettings
from firebrick.process import find_program

if TYPE_CHECKING:
    from firebrick.machine.network.pool import SlotPool
    from firebrick.machine.network.slot import Slot

Warn = Callable[[str], None]


@asynccontextmanager
async def open_driver(home: Home, settings: NodeSettings, warn: Warn = lambda _: None) -> AsyncIterator[Driver]:
    """The driver, and what it takes machines' networks from, as long as the context. `warn` is told what a production host would not do.

    Raises NodeError for what this user or this host cannot do, HostError where it lacks something."""
    check_privileges(settings)
    async with AsyncExitStack() as stack:
        seats = Seats()
        separate = network_kind(settings) is Network.NAMESPACE
        network = await _networks(settings, seats, stack) if separate else None
        if settings.driver is DriverName.QEMU:
            yield _qemu(home, settings, seats, network)
        else:
            yield _firecracker(home, settings, seats, network, warn)


def _qemu(home: Home, settings: NodeSettings, seats: Seats, network: LateSlots | None) -> Driver:
    from firebrick.machine.jail.bubble import Bubble
    from firebrick.machine.qemu import Qemu

    return Qemu(home.cache, rooms=Bubble() if settings.jailed else None, seats=seats, network=network)


def _firecracker(home: Home, settings: NodeSettings, seats: Seats, network: LateSlots | None, warn: Warn) -> Driver:
    from firebrick.machine.firecracker import Firecracker, FirecrackerSettings
    from firebrick.machine.jail.jailer import Jailer
    from firebrick.machine.pager import serving

    told = FirecrackerSettings.from_environment()
    if not settings.jailed:
        warn("Firecracker runs without its jail, as this user: that is for development, not for work nobody trusts.")
    return Firecracker(
        home.cache,
        told,
        rooms=Jailer(_program(told.binary), _program(told.jailer)) if settings.jailed else None,
        seats=seats if settings.jailed else None,
        network=network,
        pager=serving if settings.page_server else None,
    )


async def _networks(settings: NodeSettings, seats: Seats, stack: AsyncExitStack) -> LateSlots:
    """Opened at once where jobs have networks; else what nodes that were killed have left of theirs is removed."""
    from firebrick.machine.network.pool import SlotPool

    slots = LateSlots(lambda: SlotPool(seats, size=settings.slots, policy=policy_of(settings)), stack)
    await (slots.opened() if settings.network else _sweep(seats))
    return slots


class LateSlots:
    """Networks that are made from the moment somebody wants one: a node whose jobs have none needs none of the programs for it. What it opens
    ends with `stack`."""

    def __init__(self, make: Callable[[], SlotPool], stack: AsyncExitStack) -> None:
        self._make = make
        self._stack = stack
        self._opening = asyncio.Lock()
        self._pool: SlotPool | None = None

    @asynccontextmanager
    async def slot(self, policy: NetworkPolicy, occupant: Path) -> AsyncIterator[Slot]:
        """See `SlotPool.slot`."""
        async with (await self.opened()).slot(policy, occupant) as slot:
            yield slot

    async def opened(self) -> SlotPool:
        """The pool. Raises HostError where this host cannot have one."""
        async with self._opening:
            if self._pool is None:
                self._pool = await self._stack.enter_async_context(self._make())
            return self._pool


async def _sweep(seats: Seats) -> None:
    """Remove the networks of nodes that were killed. Where none was ever opened since this host's start there is nothing."""
    from firebrick.machine.network import leftovers
    from firebrick.machine.network.host import HostNetwork

    host = HostNetwork()
    if host.lock.exists():
        await leftovers.sweep(seats, host)


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
    return Path(found).absolute()
