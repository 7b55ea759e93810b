"""Machines that are to be the same each time: who they are, and what is done before anything runs in them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

from firebrick.guest.client import Identity
from firebrick.guest.errors import AgentError
from firebrick.guest.protocol import MAX_ENTROPY
from firebrick.image.errors import ImageError
from firebrick.image.model import Kernel
from firebrick.image.squashfs import read_modules
from firebrick.machine import Machine
from firebrick.node.errors import told
from firebrick.node.guest import Say
from firebrick.node.order import Fixed
from firebrick.process import ProcessError

_LAYOUT: Final = "/proc/sys/kernel/randomize_va_space"
# The agent's devices are CUSE's. Debian's kernel has that as modules, which no other machine needs.
_MODULES: Final = ("fs/fuse/fuse", "fs/fuse/cuse")
_PLACE: Final = "/run/firebrick-modules"


def identity_of(fixed: Fixed | None) -> Identity | None:
    """The same for the same `fixed`, for a machine that gets it now; None where each machine is to be itself."""
    if fixed is None:
        return None
    stream = hashlib.shake_256(f"{fixed.seed}\0{fixed.hostname}".encode()).digest(MAX_ENTROPY // 2 + 16)
    return Identity(
        entropy=stream[16:],
        clock_offset_ns=fixed.time_s * 1_000_000_000 - time.time_ns(),
        hostname=fixed.hostname,
        machine_id=stream[:16].hex(),
    )


async def fix(machine: Machine, fixed: Fixed, kernel: Kernel, *, purpose: str, say: Say) -> None:
    """Before anything runs in `machine`, which has `kernel`: programs that order things by their addresses shall do so the same each time, and read
    the same random numbers, which are others for another `purpose`. Where these cannot be had, `say` is told. Raises AgentError."""
    await machine.files.write(_LAYOUT, b"0\n", parents=True)
    try:
        modules = await _send_modules(machine, kernel)
        await machine.agent.seed(hashlib.sha256(f"{fixed.seed}\0{purpose}".encode()).digest(), modules)
    except (AgentError, ImageError, ProcessError) as error:
        say(f"Random numbers will differ from run to run: {told(error)}")


async def _send_modules(machine: Machine, kernel: Kernel) -> list[str]:
    """Where they are now, in the order to load them. A kernel without modules has built in what it has."""
    if kernel.modules is None:
        return []
    paths = []
    for name, content in (await read_modules(kernel.modules, _MODULES)).items():
        paths.append(f"{_PLACE}/{Path(name).name}.ko")
        await machine.files.write(paths[-1], content, parents=True)
    return paths
