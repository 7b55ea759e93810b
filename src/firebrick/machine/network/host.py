"""The host's side of all slots: one table of the firewall, forwarding switched on, and a lock that says who uses it.

The table is made by whoever comes first and removed by whoever goes last. A process that was killed has let go of the lock, and the next sees to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.network import forwarding, resolver
from firebrick.machine.network.addresses import RANGE
from firebrick.machine.network.commands import nft
from firebrick.machine.network.rules import TABLE, host_ruleset
from firebrick.task import shielded

_LOCK: Final = Path("/run/firebrick/network.lock")
_REMOVE: Final = f"table {TABLE}\ndelete table {TABLE}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNetwork:
    """How the slots of this host are linked to it: the same for every node on it.

    `range` gives the addresses of the links, two a slot, and must be used nowhere else; `upstreams` are the servers that names are asked of (default:
    the host's own); `mtu` is that of every link, in bytes."""

    range: IPv4Network = RANGE
    upstreams: tuple[IPv4Address, ...] = field(default_factory=resolver.upstreams)
    mtu: int = 1500
    lock: Path = _LOCK

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        """The host forwards for slots, as long as the context; see `firebrick.machine.network.forwarding`.

        Raises HostError where one may not do that."""
        with _locked_file(self.lock) as fd:
            await shielded(asyncio.to_thread(fcntl.flock, fd, fcntl.LOCK_SH))
            try:
                forwarding.switch_on(self._note)
                await nft(host_ruleset(self.range))
                yield
            finally:
                await shielded(self._remove_if_last(fd))

    async def sweep(self) -> None:
        """Remove the table where nobody uses it, and put forwarding back."""
        with _locked_file(self.lock) as fd:
            await shielded(self._remove_if_last(fd))

    @property
    def _note(self) -> Path:
        return self.lock.with_suffix(".forwarding")

    async def _remove_if_last(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            await nft(_REMOVE)
            await forwarding.put_back(self._note)


@contextmanager
def _locked_file(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot open {path}: {error.strerror}", hint="Network namespaces need root.") from error
    try:
        yield fd
    finally:
        os.close(fd)
