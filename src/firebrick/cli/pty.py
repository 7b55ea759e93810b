"""The user's terminal, lent to a command in a guest: raw while it lasts, its size followed, restored whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from firebrick.node.socket import wire
from firebrick.node.socket.caller import Call

_PIECE: Final = 1 << 16
_SHELL_SIGNALS: Final = 128


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Every key goes to the guest while this lasts."""
    if not wanted:
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it was hung up meanwhile
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    """Rows and columns; the usual ones where there is no terminal to ask."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 24, 80
    return size.lines, size.columns


async def converse(call: Call, request: wire.Execute) -> int:
    """Send the request, pass input, signals and window sizes on, write what comes; the result is an exit status as a shell has it."""
    await call.send(request)
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(_feed(call), name="vm-input") if request.stdin else None
        with _signals(call, group, terminal=request.size is not None):
            status = await _listen(call)
        if feed is not None:
            feed.cancel()
    return status


async def _listen(call: Call) -> int:
    while True:
        match await call.receive():
            case wire.Output(stream=stream, data=data):
                out = sys.stdout.buffer if stream == 1 else sys.stderr.buffer
                out.write(data)
                out.flush()
            case wire.Exited(code=code, signal=number):
                return code if code is not None else _SHELL_SIGNALS + (number or 0)
            case _:
                pass


async def _feed(call: Call) -> None:
    async for data in _input():
        await call.send(wire.Input(data=data))
    await call.send(wire.Input(data=b""))


async def _input() -> AsyncIterator[bytes]:
    """What comes on standard input, whatever it is: a terminal, a pipe, a file."""
    fd = os.dup(sys.stdin.fileno())
    try:
        while await _readable(fd) and (data := os.read(fd, _PIECE)):
            yield data
    finally:
        os.close(fd)


async def _readable(fd: int) -> bool:
    """Wait until a read does not block. The terminal may belong to others too, so it is not made non-blocking, and one look is for one read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a regular file is always ready, and epoll will not have it
        return True
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
    return True


@contextmanager
def _signals(call: Call, group: asyncio.TaskGroup, *, terminal: bool) -> Iterator[None]:
    """Without a terminal in the guest, Ctrl-C is a signal for the command; with one, it is a key, and the window's size is what changes."""
    loop = asyncio.get_running_loop()

    def resized() -> None:
        rows, columns = terminal_size()
        group.create_task(call.send(wire.Resize(rows=rows, columns=columns)), name="vm-resize")

    def interrupted(number: int) -> None:
        group.create_task(call.send(wire.Signal(number=number)), name="vm-signal")

    numbers = [signal.SIGWINCH] if terminal else [signal.SIGINT, signal.SIGTERM]
    for number in numbers:
        loop.add_signal_handler(number, resized) if terminal else loop.add_signal_handler(number, interrupted, number)
    try:
        yield
    finally:
        for number in numbers:
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
