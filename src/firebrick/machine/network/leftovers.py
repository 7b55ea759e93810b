"""Removing slots: one's own, and those whose owner was killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.network import addresses as places
from firebrick.machine.network.commands import NAMESPACES, ip, list_nft, nft
from firebrick.machine.network.host import HostNetwork
from firebrick.machine.network.rules import TABLE, elements_of
from firebrick.machine.seat import Seats
from firebrick.task import shielded

_KILL_PATIENCE_S: Final = 5.0
_NAME: Final = re.compile(r"fb(\d+)")


async def unmake(name: str) -> None:
    """Remove the link and the namespace of this name, as far as they are there. Raises HostError."""
    commands = [f"link del {name}"] if _has_link(name) else []
    if (NAMESPACES / name).exists():
        commands.append(f"netns del {name}")
    if commands:
        await ip(commands)


async def clear(name: str, peer: IPv4Address) -> None:
    """Remove what a killed owner left under this name: entries of the host's table, processes, link and namespace. Nothing where there is nothing.

    For the holder of the seat. Raises HostError."""
    netns = NAMESPACES / name
    if not netns.exists() and not _has_link(name):
        return
    await _forget_forwards(peer)
    with _held(netns) as there:
        await asyncio.to_thread(_end_processes, there)
        await unmake(name)
        await asyncio.to_thread(_end_processes, there)  # what was on its way in; now nobody finds it any more


async def sweep(seats: Seats, host: HostNetwork) -> list[str]:
    """Remove every slot whose seat nobody holds, and the host's table where nobody needs it. Returns the slots' names.

    Safe at any time and from several processes at once."""
    gone = []
    for name in sorted(_names()):
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        with seats.vacant(int(found[1])) as seat:
            if seat is not None:
                await shielded(clear(name, places.addresses(seat, host.range).peer))
                gone.append(name)
    await host.sweep()
    return gone


def _names() -> set[str]:
    links = {name for _, name in socket.if_nameindex()}
    return links | ({path.name for path in NAMESPACES.iterdir()} if NAMESPACES.is_dir() else set())


def _has_link(name: str) -> bool:
    return any(each == name for _, each in socket.if_nameindex())


async def _forget_forwards(peer: IPv4Address) -> None:
    try:
        records = await list_nft("map", *TABLE.split(), "forwards")
    except HostError:  # no table: no forwards
        return
    entries = [entry for record in records for entry in record.get("map", {}).get("elem", [])]
    if keys := elements_of(entries, peer):
        await nft("".join(f"delete element {TABLE} forwards {{ {key} }}\n" for key in keys))


@contextmanager
def _held(netns: Path) -> Iterator[os.stat_result | None]:
    """Which namespace this is, if it is one: its number is no other's as long as the context."""
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield os.fstat(fd)
    finally:
        os.close(fd)


def _end_processes(there: os.stat_result | None) -> None:
    """Kill all that runs in the namespace, and wait for it to be gone."""
    deadline = time.monotonic() + _KILL_PATIENCE_S
    while (pids := _processes(there)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _processes(there: os.stat_result | None) -> list[int]:
    if there is None or _same(there, Path("/proc/self/ns/net")):
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _same(there, Path(f"/proc/{pid}/ns/net"))]


def processes_in(netns: Path) -> list[int]:
    """The processes in a namespace; none where there is no such namespace."""
    with _held(netns) as there:
        return _processes(there)


def _same(there: os.stat_result, other: Path) -> bool:
    try:
        return os.path.samestat(there, other.stat())
    except OSError:
        return False
