"""The processes between us and a VMM: who is whose child, and when a child has become what it shall be.

These moments have no event of their own, and last a millisecond or two each. They are looked for, and looking takes a quarter of a processor at most:
where everything is slow, what is waited for needs the rest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from firebrick.machine.errors import HostError
from firebrick.machine.jail.record import start_of

_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.0005

T = TypeVar("T")


async def first_child(pid: int) -> int:
    """The first child of a process, as soon as it has one. Raises HostError when the process ends before, or has none for long."""
    if found := await _looked_for(pid, lambda: children(pid)):
        return found[0]
    raise HostError(f"process {pid} was to start a VMM in its jail, and did not", hint="Its error output says why.")


async def becomes(pid: int, uid: int) -> None:
    """Wait until a process has this user. Raises HostError when it ends before, or keeps its own for long."""
    if not await _looked_for(pid, lambda: _user(pid) == uid):
        raise HostError(f"process {pid} ended before it was jailed", hint="Its error output says why.")


async def _looked_for(pid: int, look: Callable[[], T]) -> T | None:
    """What `look` finds, as soon as it is something. None where the process ends before, or it takes too long."""
    deadline = time.monotonic() + _PATIENCE_S
    while (began := time.monotonic()) < deadline:
        if found := look():
            return found
        if start_of(pid) is None:
            return None
        await asyncio.sleep(max(_PAUSE_S, 3 * (time.monotonic() - began)))
    return None


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _user(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    except OSError:
        return None
