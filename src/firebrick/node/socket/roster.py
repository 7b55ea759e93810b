"""The machines that live on a node right now, for those who want to look into them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from firebrick.guest.errors import GuestError
from firebrick.machine import Machine
from firebrick.machine.errors import MachineError
from firebrick.node.errors import NodeError, NoNodeError
from firebrick.node.socket.wire import MachineInfo
from firebrick.task import end_tasks


@dataclass(frozen=True, slots=True)
class Resident:
    machine: Machine
    image: str
    purpose: str
    since: float = field(default_factory=time.monotonic)


class Roster:
    """Machines by id. Forks made on request live here until they are stopped or the roster is closed."""

    def __init__(self) -> None:
        self._residents: dict[str, Resident] = {}
        self._forks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def registered(self, machine: Machine, image: str, purpose: str) -> Iterator[None]:
        self._residents[machine.id] = Resident(machine, image, purpose)
        try:
            yield
        finally:
            del self._residents[machine.id]

    def find(self, name: str) -> Resident:
        """The machine with this id, or the only one whose id begins so. Raises NoNodeError."""
        found = [resident for key, resident in self._residents.items() if key.startswith(name)]
        if name in self._residents:
            return self._residents[name]
        if len(found) == 1 and name:
            return found[0]
        what = "several machines begin" if found else "no machine begins"
        raise NoNodeError(f"{what} with {name!r} on this node", hint="`firebrick vm ls` lists them.")

    def list(self) -> tuple[MachineInfo, ...]:
        return tuple(_info(resident) for resident in self._residents.values())

    async def fork(self, name: str) -> tuple[str, float]:
        """Fork the machine; the copy lives on its own. Returns its id and the milliseconds until it could be used.

        Raises what making the copy raises, NodeError where the roster is closed meanwhile. If cancelled, there is no copy."""
        source = self.find(name)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        task = asyncio.create_task(self._keep(source, ready), name=f"fork-of-{source.machine.id}")
        self._forks.add(task)
        task.add_done_callback(self._forks.discard)
        try:
            return await ready, (time.perf_counter() - began) * 1000
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def close(self) -> None:
        """End the forks. Idempotent."""
        await end_tasks(*self._forks)

    async def _keep(self, source: Resident, ready: asyncio.Future[str]) -> None:
        try:
            async with source.machine.fork() as copy:
                with self.registered(copy, source.image, f"fork of {source.machine.id}"):
                    ready.set_result(copy.id)
                    await copy.wait()
        except asyncio.CancelledError:
            if not ready.done():
                ready.set_exception(NodeError(f"cannot fork {source.machine.id}: the node ends"))
            raise
        except Exception as error:
            if not ready.done():  # whoever asked is told, whatever it is
                ready.set_exception(error)
            elif not isinstance(error, (MachineError, GuestError, OSError)):
                raise


def _info(resident: Resident) -> MachineInfo:
    machine = resident.machine
    cpu_s, resident_bytes = _host_usage(machine.pid)
    return MachineInfo(
        id=machine.id,
        image=resident.image,
        purpose=resident.purpose,
        vcpus=machine.spec.vcpus,
        memory_mib=machine.spec.memory_mib,
        age_s=time.monotonic() - resident.since,
        resident_bytes=resident_bytes,
        cpu_s=cpu_s,
        node=os.getpid(),
    )


def _host_usage(pid: int | None) -> tuple[float, int]:
    """CPU seconds and resident bytes of the machine's process; zeros where there is none to look at."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0, 0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
