"""Names for one namespace: dnsmasq, told which names there are, and telling the firewall which addresses they have.

It runs as a user of its own that may change the firewall of its namespace and nothing else, and asks the host's servers for what the policy names.
Every other name does not exist. Answers live for a minute at most, in the cache and at the guest, and their addresses stay open for an hour after
the guest last connected to them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.network.addresses import RESOLVER, Addresses
from firebrick.machine.network.commands import entering
from firebrick.machine.network.policy import NetworkPolicy
from firebrick.machine.network.rules import TABLE, name_set
from firebrick.process import PIPE, Process, ProcessError, spawn
from firebrick.task import alongside

_RESOLV_CONF: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_MOST_SERVERS: Final = 3
_LONGEST_TTL_S: Final = 60
_START_S: Final = 10.0
_AGAIN_S: Final = 1.0
_HINT: Final = "Names need the package dnsmasq-base."
_STARTED: Final = b"started, version"


def upstreams() -> tuple[IPv4Address, ...]:
    """The servers this host asks. Those on its loopback cannot be asked from a namespace: then, those that they ask. May be empty."""
    for path in _RESOLV_CONF:
        with contextlib.suppress(OSError):
            if found := parse_servers(path.read_text()):
                return found
    return ()


def parse_servers(text: str) -> tuple[IPv4Address, ...]:
    """The servers of a `resolv.conf` that can be asked from elsewhere than its own host. Pure."""
    found: list[IPv4Address] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(AddressValueError):
                address = IPv4Address(words[1])
                if not address.is_loopback:
                    found.append(address)
    return tuple(found[:_MOST_SERVERS])


def configuration(policy: NetworkPolicy, at: Addresses) -> str:
    """dnsmasq's, for the names of a policy. Pure.

    `server=/a.org/` is a.org and all below, `server=/*.a.org/` only what is below, and the longer name wins: so an exact name takes what is below
    it out again, unless that is allowed too, and what is below a wildcard takes the name itself out."""
    lines = [*_SETTLED, f"listen-address={RESOLVER}"]
    if not any(allow.private for allow in policy.allow):
        lines.append(
            "stop-dns-rebind"
        )  # where private networks are allowed, names in them are; the firewall holds the others
    names = set(policy.names)
    for name in sorted(names):
        lines += [f"server=/{name}/{server}" for server in at.upstreams]
        lines += [f"address=/{other}/" for other in _excluded(name) if other not in names]
    for domain in sorted({name.removeprefix("*.") for name in names}):
        sets = ",".join(f"4#{TABLE.replace(' ', '#')}#{name_set(name)}" for name in _covering(domain, names))
        lines.append(f"nftset=/{domain}/{sets}")
    return "".join(f"{line}\n" for line in lines)


_SETTLED: Final = (
    "keep-in-foreground",
    "log-facility=-",
    "pid-file=",
    "no-resolv",
    "no-hosts",
    "no-poll",
    "bind-interfaces",
    "except-interface=lo",
    "filter-AAAA",
    "domain-needed",
    "bogus-priv",
    "cache-size=400",
    "dns-forward-max=64",
    f"max-ttl={_LONGEST_TTL_S}",
    f"max-cache-ttl={_LONGEST_TTL_S}",
    "neg-ttl=5",
)


def _excluded(name: str) -> Iterator[str]:
    """The names dnsmasq would think allowed along with this one."""
    yield name.removeprefix("*.") if name.startswith("*.") else f"*.{name}"


def _covering(domain: str, names: set[str]) -> Iterator[str]:
    """Those of the names that speak of `domain` or what is below it."""
    for name in sorted(names):
        base = name.removeprefix("*.")
        if base == domain or (name.startswith("*.") and domain.endswith(f".{base}")):
            yield name


def check(policy: NetworkPolicy, at: Addresses) -> None:
    """Raises HostError where there are names, and nobody to ask for them."""
    if policy.names and not at.upstreams:
        raise HostError(
            "cannot resolve the names of a network policy: this host has no server for names that a namespace could ask",
            hint="Say which, as `upstreams` of the network.",
        )


@asynccontextmanager
async def resolving(namespace: str, policy: NetworkPolicy, at: Addresses) -> AsyncIterator[None]:
    """A resolver in the namespace, as long as the context; it answers when this yields. The sets its addresses go to are there already.

    Raises HostError."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with alongside(_kept(namespace, policy, at, ready), name=f"resolver-{namespace}"):
        await ready
        yield


async def _kept(namespace: str, policy: NetworkPolicy, at: Addresses, ready: asyncio.Future[None]) -> None:
    """Start it again when it dies: what a guest asks, and what servers answer, may have killed it."""
    while True:
        try:
            async with _started(namespace, at) as process:
                await _feed(process, configuration(policy, at))
                await _answers(process)
                if not ready.done():
                    ready.set_result(None)
                await _drain(process)
        except HostError as error:
            if not ready.done():
                ready.set_exception(error)
                return
        await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def _started(namespace: str, at: Addresses) -> AsyncIterator[Process]:
    only = "-all,+net_admin"
    argv = [
        *entering(namespace),
        *("setpriv", f"--reuid={at.resolver_uid}", f"--regid={at.resolver_uid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"),
        *("--pdeathsig", "KILL", "--"),  # changing the user has undone the one there was
        *("dnsmasq", "--conf-file=-"),
    ]
    try:
        async with spawn(argv, stdin=PIPE, stderr=PIPE, grace=0, hint=_HINT) as process:
            yield process
    except ProcessError as error:
        raise HostError(str(error), hint=error.hint) from error


async def _feed(process: Process, text: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # it has ended, and says why
        process.stdin.write(text.encode())
        await process.stdin.drain()
    process.stdin.close()


async def _answers(process: Process) -> None:
    """Wait until it says that it has started: its sockets are open by then."""
    assert process.stderr is not None
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while line := await process.stderr.readline():
                if _STARTED in line:
                    return
                said = line
    raise HostError(f"cannot resolve names: dnsmasq did not start: {said.decode(errors='replace').strip()}", hint=_HINT)


async def _drain(process: Process) -> None:
    """Until it ends: what it says is not kept, and must not hold it up."""
    assert process.stderr is not None
    while await process.stderr.read(1 << 12):
        pass
