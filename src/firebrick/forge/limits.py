"""What getting a repository may take, and the watch that ends it there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from firebrick.forge.errors import CloneError, CloneLimitError
from firebrick.task import race
from firebrick.tree import Measured, measure

T = TypeVar("T")

_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class CloneLimits:
    """What a clone may take: MiB and entries on disk (history and tree together), seconds."""

    size_mib: int = 2048
    entries: int = 500_000
    seconds: float = 300.0

    @property
    def size_bytes(self) -> int:
        return self.size_mib << 20


async def bounded(work: Coroutine[Any, Any, T], url: str, target: Path, limits: CloneLimits) -> T:
    """The result of `work`, which gets the repository at `url` and writes below `target` alone. It is cancelled at a limit.

    Raises CloneLimitError, CloneError, and what `work` raises."""
    try:
        async with asyncio.timeout(limits.seconds):
            done = await race(work, _watch(url, target, limits), name="clone")
        _check(await asyncio.to_thread(measure, target), url, limits)
    except TimeoutError:
        raise CloneLimitError(
            f"cannot clone {url}: it took longer than {limits.seconds:g} s",
            hint="`clone_timeout_s` in config.toml sets the limit.",
        ) from None
    except OSError as error:  # a path in it is longer than the host's can be
        raise CloneError(f"cannot clone {url}: {error.strerror or error}") from error
    return done


async def _watch(url: str, target: Path, limits: CloneLimits) -> NoReturn:
    """Measure now and then; big trees less often, so that measuring never takes more than a tenth of the time."""
    while True:
        started = time.monotonic()
        _check(await asyncio.to_thread(measure, target), url, limits)
        await asyncio.sleep(max(_PAUSE_S, 10 * (time.monotonic() - started)))


def _check(measured: Measured, url: str, limits: CloneLimits) -> None:
    if measured.bytes > limits.size_bytes:
        raise CloneLimitError(
            f"cannot clone {url}: it is larger than {limits.size_mib} MiB",
            hint="`clone_max_mib` in config.toml sets the limit.",
        )
    if measured.entries > limits.entries:
        raise CloneLimitError(f"cannot clone {url}: it has more than {limits.entries} files and directories")
