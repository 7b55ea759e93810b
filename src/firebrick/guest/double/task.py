"""A program running in the double: what it is given, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from firebrick.guest.double.disk import MemoryDisk
from firebrick.guest.double.pipe import PipeEnd
from firebrick.guest.message import PtySize

Write = Callable[[bytes], Awaitable[None]]
Read = Callable[[], Awaitable[bytes]]
Port = Callable[[Read, Write], Awaitable[None]]
"""What answers on a port: reads until b"", writes, and ends its side by returning."""


class Killed(Exception):  # noqa: N818 - an end, not an error
    """The program ended by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.number = number


Dial = Callable[[int | bytes, str], PipeEnd]
"""Connects to a port, or the path of a unix socket, and an address. Raises ConnectionRefusedError."""


def _refuse(where: int | bytes, address: str) -> PipeEnd:
    raise ConnectionRefusedError(f"nobody listens on {where!r} of {address}")


@dataclass
class Task:
    """What a program has: arguments, environment, input, output, files, signals.

    `read` gives the next piece of input, b"" at its end; `out` and `err` wait where the host does not take the output. `programs` are
    all there are, for a program that runs others. `size` is that of the terminal, where it has one."""

    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    cwd: bytes
    disk: MemoryDisk
    read: Read
    out: Write
    err: Write
    programs: dict[str, Program]
    user: str = "root"
    pid: int = 2
    size: PtySize | None = None
    traps: dict[int, Callable[[], None] | None] = field(default_factory=dict)
    dial: Dial = _refuse

    def path(self, name: bytes) -> bytes:
        """`name` as an absolute path."""
        return name if name.startswith(b"/") else self.cwd.rstrip(b"/") + b"/" + name

    def trap(self, number: int, action: Callable[[], None] | None) -> None:
        """Call `action` when the signal comes, or ignore it where that is None, instead of ending."""
        self.traps[number] = action


class Program(Protocol):
    """A coroutine that is a program. What it returns is its exit status; it may raise Refusal or Killed."""

    async def __call__(self, task: Task, /) -> int: ...


_IGNORED = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}


class Running:
    """A program being run. `number` is the signal that ended it, where one did."""

    def __init__(self, program: Program, task: Task) -> None:
        self._task = task
        self._job = asyncio.ensure_future(program(task))
        self._number: int | None = None

    def signal(self, number: int) -> None:
        """Deliver a signal: to the program's trap, else by ending it."""
        if number in self._task.traps and number not in (signal.SIGKILL, signal.SIGSTOP):
            action = self._task.traps[number]
            if action is not None:
                action()
        elif number not in _IGNORED:
            self._number = number
            self._job.cancel()

    async def end(self) -> tuple[int | None, int | None]:
        """Its exit status, or the signal that ended it. If this is cancelled the program is killed."""
        try:
            return await self._job & 0xFF, None
        except Killed as killed:
            return None, killed.number
        except asyncio.CancelledError:
            if self._number is None:
                raise
            return None, self._number
        finally:
            if not self._job.done():
                self._job.cancel()
                await asyncio.wait([self._job])
