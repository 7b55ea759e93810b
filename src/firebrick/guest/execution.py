"""A command running in a guest, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from os import fsencode
from typing import TypedDict

from firebrick.guest import message
from firebrick.guest.connection import Connection
from firebrick.guest.errors import CommandError, StreamClosedError
from firebrick.guest.exchange import Stream
from firebrick.guest.message import Entry, Move, PtySize, Put
from firebrick.guest.preparation import prepared

Text = str | bytes
"""What Linux keeps as bytes. A str is encoded like a file name: UTF-8, undecodable bytes as surrogates."""

RESET_PATIENCE = 5.0
"""Seconds the agent gets to confirm that a command that was given up is gone."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a command ended: either `code` or `signal` is set. Times in seconds; the memory is the peak of all its processes. `listing` is what the directory
    held that was to be listed, sorted by name; None where none was, and where who wants to know has to ask for it: there was much in it, or the agent is
    of an earlier release."""

    code: int | None
    signal: int | None
    timed_out: bool
    oom: bool
    cpu_s: float
    wall_s: float
    memory_peak_bytes: int
    listing: tuple[Entry, ...] | None = None

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.code is not None:
            how = f"exited with status {self.code}"
        else:
            how = f"was ended by {_signal_name(self.signal or 0)}"
        if self.timed_out:
            how += f" after running out of time ({self.wall_s:.1f} s)"
        if self.oom:
            how += ", having run out of memory"
        return how


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended, with all it wrote."""

    stdout: bytes
    stderr: bytes
    status: ExitStatus


class Process:
    """A running command, made by `Agent.exec`.

    `stdout` and `stderr` are asynchronous iterables of chunks. What is not read is held back: a command whose output nobody takes
    stops once 256 KiB wait, and does not end. Read both, or `discard()` what is of no interest.
    """

    def __init__(self, stream: Stream, pid: int) -> None:
        self._stream = stream
        self.pid = pid
        self.stdout = stream.output
        self.stderr = stream.error

    async def write(self, data: bytes | memoryview) -> None:
        """Write to the command's input; returns when there is room for more. Raises StreamClosedError when it has ended."""
        await self._stream.send(data)

    async def close_stdin(self) -> None:
        """Let the command see the end of its input. Idempotent, also after it has ended."""
        await self._stream.send_eof()

    async def resize(self, size: PtySize) -> None:
        """Give its terminal another size. Does nothing after the end."""
        await self._stream.say(message.Resize(rows=size.rows, cols=size.cols))

    async def signal(self, number: int, *, group: bool = True) -> None:
        """Send a signal to all its processes, or only to the first one. Does nothing after the end."""
        await self._stream.say(message.Signal(number=int(number), group=group))

    async def wait(self) -> ExitStatus:
        """Wait until it has ended and its output is complete. May be called by any number of tasks, any number of times.

        Raises ChannelError if the connection is lost first."""
        return _status(await self._stream.last(message.Exit))


class ExecOptions(TypedDict, total=False):
    """How a command is run; all may be left out.

    `env` is added to the agent's defaults, or is everything with `clear_env`. `user` is a name, `uid` or `uid:gid`; None is root. Without
    `stdin` the command reads /dev/null. `pty` gives it a terminal of that size, and all its output is in `stdout`. After `timeout`
    seconds it and all it started gets SIGTERM, 2 s later SIGKILL. `merge` puts its error output into `stdout`, in order. With `detach`
    it goes on when its context, or the connection, ends.

    `before` is done first, in this order, and on the same way to the guest where it is not long; what cannot be done raises PreparationError, and the
    command is not started. `listing` is a directory: what it holds when nothing of the command runs any more is in `ExitStatus.listing`.
    """

    env: Mapping[str, str] | None
    clear_env: bool
    cwd: Text | None
    user: str | None
    stdin: bool
    pty: PtySize | None
    timeout: float | None
    detach: bool
    merge: bool
    before: Sequence[Put | Move]
    listing: Text | None


def exec_request(argv: Sequence[Text], options: ExecOptions) -> message.Exec:
    """The request for a command."""
    cwd, timeout, listing = options.get("cwd"), options.get("timeout"), options.get("listing")
    return message.Exec(
        argv=tuple(fsencode(a) for a in argv),
        env={fsencode(k): fsencode(v) for k, v in (options.get("env") or {}).items()},
        clear_env=options.get("clear_env", False),
        cwd=None if cwd is None else fsencode(cwd),
        user=options.get("user"),
        stdin=options.get("stdin", False),
        pty=options.get("pty"),
        timeout_ms=None if timeout is None else max(1, round(timeout * 1000)),
        detach=options.get("detach", False),
        merge=options.get("merge", False),
        before=tuple(options.get("before", ())),
        listing=None if listing is None else fsencode(listing),
    )


@contextlib.asynccontextmanager
async def running(connection: Connection, request: message.Exec) -> AsyncIterator[Process]:
    """Run a command. If it still runs at the end of the context, it and all it started is killed - unless it was detached."""
    async with connection.stream(await prepared(connection, request)) as stream:
        started = await stream.first()
        assert isinstance(started, message.Started)
        try:
            yield Process(stream, started.pid)
        finally:
            if not stream.ended:
                stream.give_up()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESET_PATIENCE):
                        await stream.settle()


@contextlib.asynccontextmanager
async def _plain_errors() -> AsyncIterator[None]:
    """Raise the first error of a task group as itself.

    A group that fails while it is being left has asked its task to cancel and, before Python 3.13, does not take that back: on a Python whose time
    limits count such requests, every later one of the task would then end as a cancellation."""
    task = asyncio.current_task()
    assert task is not None
    asked = task.cancelling()
    try:
        yield
    except ExceptionGroup as group:
        while task.cancelling() > asked:
            task.uncancel()
        first = group.exceptions[0]
        raise first from first.__cause__


async def gather(process: Process, data: bytes, limit: int) -> Completed:
    """Feed a process, take all its output and wait for its end."""
    async with _plain_errors(), asyncio.TaskGroup() as group:
        stdout = group.create_task(process.stdout.read_all(limit), name="guest-run-stdout")
        stderr = group.create_task(process.stderr.read_all(limit), name="guest-run-stderr")
        if data:
            group.create_task(_feed(process, data), name="guest-run-stdin")
    return Completed(stdout.result(), stderr.result(), await process.wait())


async def _feed(process: Process, data: bytes) -> None:
    with contextlib.suppress(StreamClosedError):  # a command need not read what it is given
        await process.write(data)
        await process.close_stdin()


def failure(argv: Sequence[Text], done: Completed) -> CommandError:
    """The error for a command that had to succeed and did not."""
    name = os.fsdecode(argv[0])
    tail = done.stderr[-2000:]
    said = f": {tail.decode(errors='replace').strip()}" if tail.strip() else ""
    return CommandError(
        f"{name} {done.status}{said}", code=done.status.code, signal=done.status.signal, stderr=done.stderr[-65536:]
    )


def _status(end: message.Exit) -> ExitStatus:
    return ExitStatus(
        code=end.code,
        signal=end.signal,
        timed_out=end.timed_out,
        oom=end.oom,
        cpu_s=end.cpu_us / 1e6,
        wall_s=end.wall_us / 1e6,
        memory_peak_bytes=end.memory_peak_bytes,
        listing=end.listing,
    )


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
