"""All services of a job: each in a machine of its own, found by its name from the job and from the others, without any network.

In the machine of the job the agent listens, for each service, on an address of the loopback that is that service's, at the ports it has; relays
carry what comes there into the service's machine. `/etc/hosts` has the names. So nothing of a job can reach anything but its own services, at their
ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from firebrick.guest.errors import AgentError, FileExistsInGuestError
from firebrick.node.container.image import ContainerImage
from firebrick.node.container.service import Service, launch_of, running
from firebrick.node.errors import ContainerError
from firebrick.node.guest import Borrower, Guest, Say
from firebrick.node.hosts import add_names
from firebrick.node.order import Resources
from firebrick.node.relay import GuestPort, relay
from firebrick.task import alongside, end_tasks
from firebrick.workflow.container.container import ContainerSpec
from firebrick.workflow.expression.value import Value

_MOST_PORTS: Final = 96
"""Of all services of a job: each is a listener in the job's machine, which has room for more."""

_MOST_WARNINGS: Final = 20
NETWORK: Final = "firebrick"
_MEMORY_MIB, _LEAST_MEMORY_MIB = 1024, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A service to be started, with its image."""

    name: str
    spec: ContainerSpec
    image: ContainerImage

    @property
    def ports(self) -> tuple[int, ...]:
        named = {port.container for port in self.spec.ports if port.transport == "tcp"}
        return tuple(sorted(named | set(self.image.config.ports)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who has the services: the job, the `guest` its steps run in, and whether that is a container."""

    job: Borrower
    guest: Guest
    contained: bool


async def find_images(specs: Mapping[str, ContainerSpec], job: Borrower) -> list[Wanted]:
    """The images of all services, made first where they are missing. Says which options have no effect. Raises ContainerError, ImageError."""
    wanted = []
    for name, spec in specs.items():
        one = Wanted(name=name, spec=spec, image=await job.image(spec.image, spec.login))
        launch_of(spec, one.image.config)
        warn(_without_effect(one), job.say)
        wanted.append(one)
    if sum(len(one.ports) + len(one.spec.ports) for one in wanted) > _MOST_PORTS:
        raise ContainerError(f"the services of a job may have {_MOST_PORTS} ports together, and these have more")
    return wanted


def warn(texts: Sequence[str], say: Say) -> None:
    """Say what has no effect; of very much of it not all."""
    for text in texts[:_MOST_WARNINGS]:
        say(f"Warning: {text}")
    if len(texts) > _MOST_WARNINGS:
        say(f"Warning: {len(texts) - _MOST_WARNINGS} more have no effect here.")


def _without_effect(one: Wanted) -> list[str]:
    name, spec = one.name, one.spec
    texts = [f"The option {option} of the service {name} has no effect here." for option in spec.options.ignored]
    texts += [f"The volume {volume} of the service {name} has no effect here." for volume in spec.volumes]
    texts += [
        f"The port {port.container}/{port.transport} of the service {name} has no effect here: only TCP ports are joined."
        for port in spec.ports
        if port.transport != "tcp"
    ]
    if not one.ports:
        texts.append(f"The service {name} has no ports: its image exposes none. Name them in `ports`.")
    return texts


@dataclass(frozen=True, slots=True)
class Served:
    """Services that are ready. `context` is `job.services`."""

    services: Sequence[Service] = ()
    context: Mapping[str, Value] = field(default_factory=dict)

    @asynccontextmanager
    async def found_by(self, guest: Guest) -> AsyncIterator[None]:
        """Let another machine of the job find them, at their own addresses, while the context lasts."""
        async with AsyncExitStack() as stack:
            if self.services:
                await _reach(stack, self.services, guest)
            yield


@asynccontextmanager
async def serving(wanted: Sequence[Wanted], party: Party) -> AsyncIterator[Served]:
    """All of them, ready, while the context lasts.

    Raises ContainerError where one ends or stays unhealthy; the last it wrote has been said then."""
    async with AsyncExitStack() as stack:
        services = [await _start(stack, number, one, party.job) for number, one in enumerate(wanted, start=1)]
        await _join(stack, services, party.job.say)
        ports = await _open(stack, services, party)
        await _all_ready(services, party.job.say)
        async with alongside(_watch(services, party.job.say), name="services-watch"):
            context = {service.name: _context(service, ports[service.name]) for service in services}
            yield Served(services, context)


def _context(service: Service, ports: Mapping[int, int]) -> Value:
    found = {str(inside): str(outside) for inside, outside in ports.items()}
    return {"id": service.machine, "network": NETWORK, "ports": found}


async def _start(stack: AsyncExitStack, number: int, wanted: Wanted, job: Borrower) -> Service:
    lent = job.companion(wanted.image, f"service {wanted.name}", _resources(wanted.spec, job.resources))
    loan = await stack.enter_async_context(lent)
    return Service(
        name=wanted.name,
        machine=loan.machine,
        guest=loan.guest,
        spec=wanted.spec,
        image=wanted.image,
        address=f"127.1.0.{number}",
        ports=wanted.ports,
    )


def _resources(spec: ContainerSpec, of_job: Resources) -> Resources:
    """What the options ask for, within what the job itself has."""
    most = max(of_job.memory_mib, _MEMORY_MIB)
    memory = min(max(spec.options.memory_mib or _MEMORY_MIB, _LEAST_MEMORY_MIB), most)
    return replace(of_job, vcpus=min(spec.options.vcpus or 1, of_job.vcpus), memory_mib=memory)


async def _join(stack: AsyncExitStack, services: Sequence[Service], say: Say) -> None:
    """Let the services find one another, and then start their programs: one may look for another at once."""
    for service in services:
        others = [other for other in services if other is not service]
        for other in others:
            for port in _apart(service, other, say):
                await stack.enter_async_context(_relayed(service.guest, other, port, other.address, port))
        await _name(service.guest, {**_names(others), service.name: "127.0.0.1"})
    for service in services:
        await stack.enter_async_context(running(service))


def _apart(service: Service, other: Service, say: Say) -> list[int]:
    """The ports at which a service finds another: not those it has itself. A program that listens on all addresses, as most do, could not where
    somebody listens on one of them already."""
    for port in sorted(set(other.ports) & set(service.ports)):
        say(f"The service {service.name} does not find {other.name} at port {port}, which is one of its own.")
    return [port for port in other.ports if port not in service.ports]


def _names(services: Sequence[Service]) -> dict[str, str]:
    names = {service.spec.options.hostname or service.name: service.address for service in services}
    return {**names, **{service.name: service.address for service in services}}


async def _name(guest: Guest, names: Mapping[str, str]) -> None:
    try:
        await add_names(guest.files, names)
    except AgentError as error:
        raise ContainerError(f"cannot name the services in a machine: {error}") from error


async def _open(stack: AsyncExitStack, services: Sequence[Service], party: Party) -> dict[str, dict[int, int]]:
    """Let the job find them: at their own addresses, and, where it is no container, at ports of localhost. The ports of localhost by service."""
    guest = party.guest
    await _reach(stack, services, guest)
    found: dict[str, dict[int, int]] = {}
    for service in services:
        mapped = [port for port in service.spec.ports if port.transport == "tcp"]
        found[service.name] = {port.container: port.container for port in mapped}
        for pair in mapped if not party.contained else ():
            opened = _relayed(guest, service, pair.container, "127.0.0.1", pair.host)
            found[service.name][pair.container] = await stack.enter_async_context(opened)
    return found


async def _reach(stack: AsyncExitStack, services: Sequence[Service], guest: Guest) -> None:
    for service in services:
        for port in service.ports:
            await stack.enter_async_context(_relayed(guest, service, port, service.address, port))
    await _name(guest, _names(services))


@asynccontextmanager
async def _relayed(guest: Guest, service: Service, port: int, address: str, at: int) -> AsyncIterator[int]:
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(
                relay(guest, GuestPort(service.guest, port), address=address, port=at)
            )
        except FileExistsInGuestError as error:
            raise ContainerError(
                f"cannot join port {at} to the service {service.name}: it is taken", hint="Name another one in `ports`."
            ) from error
        yield opened


async def _all_ready(services: Sequence[Service], say: Say) -> None:
    """Raises the first ContainerError, after what that service has written."""
    waiting = {
        asyncio.create_task(service.ready(), name=f"service-{service.name}-ready"): service for service in services
    }
    try:
        for done in asyncio.as_completed(waiting):
            await done
    except ContainerError:
        for task, service in waiting.items():
            if task.done() and task.exception() is not None:
                _say_log(service, say)
        raise
    finally:
        await end_tasks(*waiting)


async def _watch(services: Sequence[Service], say: Say) -> None:
    """Say of each service that ends while the job runs that it has."""
    pending = {service.ended: service for service in services}
    while pending:
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            service = pending.pop(ended)
            say(f"The service {service.name} has ended: {service.ended.result()}")
            _say_log(service, say)


def _say_log(service: Service, say: Callable[[str], None]) -> None:
    if service.lines:
        say(f"The last lines of the service {service.name}:")
    for line in service.lines:
        say(f"  {line}")
