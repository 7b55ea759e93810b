"""Rows about the page server: pages per second, against copying the same file in memory, against a private mapping of it, and against
the shortest page server there is, in Python."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.bed import Bed
from bench.row import Row, compared
from firebrick import process
from firebrick.machine.pager import PAGE, SOCKET, serving
from tests.pager.player import Machine, machine, near

_PAGES: Final = 128 << 8
_SIZE: Final = _PAGES * PAGE
_ROUNDS: Final = 5
_PYTHON: Final = Path(__file__).with_name("python_pager.py")


@dataclass(frozen=True, slots=True)
class Memory:
    """A file of 128 MiB in the page cache, where machines live, and a prefetch list of all of it."""

    root: Path
    file: Path
    wanted: Path

    @classmethod
    def make(cls, root: Path) -> Memory:
        root.mkdir()
        memory = cls(root, root / "memory", root / "prefetch")
        with memory.file.open("wb") as file:
            for _ in range(_SIZE >> 20):
                file.write(os.urandom(1 << 20))
        memory.wanted.write_text(f"firebrick-prefetch 1\n0 {_PAGES}\nend 1\n")
        return memory

    def remove(self) -> None:
        self.file.unlink()
        self.wanted.unlink()
        self.root.rmdir()


async def pages(bed: Bed) -> list[Row]:
    memory = Memory.make(bed.home.root / "bench-pages")
    try:
        return [
            await _row("pages served in order, against memcpy", memory, _copied, _served, 0.8),
            await _row("pages served in order, against a file mapping", memory, _mapped, _served, 0.15),
            await _row("pages served at random, against a file mapping", memory, _mapped_random, _served_random, 0.1),
            await _row("pages replayed, against memcpy", memory, _copied, _replayed, 0.8),
            await _row("pages served one by one, against Python", memory, _python, _served_singly, 1.0),
        ]
    finally:
        memory.remove()


async def _row(
    name: str,
    memory: Memory,
    floor: Callable[[Memory], Awaitable[float]],
    own: Callable[[Memory], Awaitable[float]],
    limit: float,
) -> Row:
    """Turn by turn, so that both sides see the same host."""
    bare, ours = [], []
    for _ in range(_ROUNDS):
        bare.append(_PAGES / await floor(memory))
        ours.append(_PAGES / await own(memory))
    return compared(name, "pages/s", bare, ours, limit, more_is_better=True)


async def _copied(memory: Memory) -> float:
    async with machine() as player:
        return float(await player.copy_file(path=str(memory.file), size=_SIZE))


async def _mapped(memory: Memory, *, scattered: bool = False) -> float:
    async with machine() as player:
        await player.map_file(path=str(memory.file), size=_SIZE)
        return float(await player.sweep(size=_SIZE, scattered=scattered))


async def _mapped_random(memory: Memory) -> float:
    return await _mapped(memory, scattered=True)


@asynccontextmanager
async def _shaken(memory: Memory) -> AsyncIterator[Machine]:
    async with machine(_PAGES) as player:
        with near(memory.root / SOCKET) as path:
            await player.shake(path=path)
        yield player


async def _served(memory: Memory, *, scattered: bool = False, around: int | None = None) -> float:
    async with serving(memory.root, memory=memory.file, around=around), _shaken(memory) as player:
        return float(await player.sweep(size=_SIZE, scattered=scattered))


async def _served_random(memory: Memory) -> float:
    return await _served(memory, scattered=True)


async def _served_singly(memory: Memory) -> float:
    return await _served(memory, scattered=True, around=PAGE)


async def _replayed(memory: Memory) -> float:
    """From the handshake until the last page is there; nothing is touched."""
    async with serving(memory.root, memory=memory.file, prefetch=memory.wanted), _shaken(memory) as player:
        return float(await player.until_resident(size=_SIZE))


async def _python(memory: Memory) -> float:
    argv = [sys.executable, str(_PYTHON), str(memory.root / SOCKET), str(memory.file)]
    async with process.spawn(argv, stdout=process.PIPE) as running:
        assert running.stdout is not None
        await running.stdout.readline()  # it listens
        async with _shaken(memory) as player:
            took = float(await player.sweep(size=_SIZE, scattered=True))
    (memory.root / SOCKET).unlink()
    return took
