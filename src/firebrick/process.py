"""The one door through which Firebrick starts programs on the host.

Always an argument list, never a shell; a small clean environment; a session of its own, so that whatever the program starts can be ended with
it; and a death signal, so that it does not outlive this process even when that is killed. Of firebrick only `task` is imported here.

    run     start, feed, wait; the output comes back, a failure is an exception with the program's last words
    spawn   a context in which the program lives; leaving it terminates, kills and reaps, in this order
    attend  the same for a program that another process started, detached, and that is running
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.errors import FirebrickError
from firebrick.task import shielded

PIPE: Final = subprocess.PIPE
DEVNULL: Final = subprocess.DEVNULL

_LINE_LIMIT: Final = 1 << 20
_TAIL_BYTES: Final = 64 << 10
_TAIL_LINES: Final = 20
_LINGER_S: Final = 1.0
_INHERITED: Final = ("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR")

_TETHER: Final = Path(__file__).parent / "bin" / "firebrick-tether"
_TETHERED: Final = _TETHER.exists()  # not in a source tree where nothing was built yet
_SETPRIV: Final = shutil.which("setpriv", path="/usr/bin:/bin") or "setpriv"

Argument = str | os.PathLike[str]


class ProcessError(FirebrickError):
    """A program on the host failed. The message ends with its last words."""

    def __init__(
        self, message: str, *, hint: str = "", argv: Sequence[str] = (), returncode: int | None = None, stderr: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


class ProgramNotFoundError(ProcessError):
    """The program is not on this host."""


class ProcessTimeoutError(ProcessError):
    """The program took longer than it was given, and was killed."""


class OutputLimitError(ProcessError):
    """The program wrote more than the caller was ready to keep, and was killed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. `stderr` holds its last 64 KiB."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


class Process:
    """A running program, made by `spawn`. `stdin`, `stdout` and `stderr` are streams where `PIPE` was asked for, else None."""

    def __init__(self, popen: subprocess.Popen[bytes], argv: tuple[str, ...]) -> None:
        self._popen = popen
        self.argv = argv
        self.pid: Final[int] = popen.pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._over = asyncio.Event()
        self._released = False
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._over.set)

    @property
    def ended(self) -> bool:
        return self._popen.returncode is not None or self._over.is_set()

    @property
    def returncode(self) -> int | None:
        """Negative: the number of the signal that ended it. None while it runs."""
        return self._reap() if self.ended else None

    async def wait(self) -> int:
        """Wait until the program has ended. Any number of tasks may wait. What it started may live on until the context is left."""
        await self._over.wait()
        return self._reap()

    def signal(self, number: int) -> None:
        """Send a signal to the program and all it started, unless they changed their session. Ignored when it has ended."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def terminate(self, grace: float) -> None:
        """SIGTERM; after `grace` seconds SIGKILL; then reap. Idempotent."""
        if not self.ended:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), grace)
        self.signal(signal.SIGKILL)
        await self.wait()

    def release(self) -> None:
        """Let a program that was started detached live on when the context is left. Idempotent."""
        self._released = True

    def _reap(self) -> int:
        """The program is known to have ended. Until it is reaped its number is ours: the moment to end what is left of its group."""
        self.signal(signal.SIGKILL)
        return self._popen.wait()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._popen.stdin is not None:
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
            transport, _ = await loop.connect_write_pipe(lambda: protocol, self._popen.stdin)
            self._transports.append(transport)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        for name in ("stdout", "stderr"):
            pipe = getattr(self._popen, name)
            if pipe is not None:
                reader = asyncio.StreamReader(limit=_LINE_LIMIT)
                transport_, _ = await loop.connect_read_pipe(lambda r=reader: asyncio.StreamReaderProtocol(r), pipe)  # type: ignore[misc]
                self._transports.append(transport_)
                setattr(self, name, reader)

    def _part(self) -> None:
        """It is a child still, and nobody here will wait for it: its remains are taken when the next program is started."""
        if not self.ended:
            _RELEASED.add(self.pid)
            self._popen.returncode = 0
        else:
            self._reap()

    async def _close(self, grace: float) -> None:
        try:
            if self._released:
                self._part()
            else:
                await self.terminate(grace)
        finally:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            for transport in self._transports:
                if not transport.is_closing():
                    transport.abort() if isinstance(transport, asyncio.WriteTransport) else transport.close()
            for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
                if pipe is not None:
                    pipe.close()
            await asyncio.sleep(0)  # transports let go of their pipes in the loop's next round


class Attended:
    """A running program that is not a child of this process: what it ends with cannot be known. Made by `attend`."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid: Final[int] = pid
        self._pidfd = pidfd
        self._over = asyncio.Event()
        self._released = False
        asyncio.get_running_loop().add_reader(pidfd, self._over.set)

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    async def wait(self) -> None:
        """Wait until the program has ended. Any number of tasks may wait."""
        await self._over.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the program, and to all it started where it leads a group. Ignored when it has ended."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, 0)  # it is there still, and the number is its own
                if os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, number)
                else:
                    signal.pidfd_send_signal(self._pidfd, number)

    def release(self) -> None:
        """Let it live on when the context is left. Idempotent."""
        self._released = True


_RELEASED: Final[set[int]] = set()
"""Children that were released: nobody waits for them."""


def _forget_released() -> None:
    for pid in tuple(_RELEASED):
        try:
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        except ChildProcessError:
            pass
        _RELEASED.discard(pid)


@asynccontextmanager
async def attend(pid: int, is_right: Callable[[], bool]) -> AsyncIterator[Attended]:
    """Attend to the running program `pid`, which was started detached. Once its number cannot be given to another any more, `is_right` is asked
    whether it is the one that was meant. On exit it is killed, unless it was released.

    Raises ProcessLookupError where it has ended, or is not the right one."""
    pidfd = os.pidfd_open(pid)
    process = Attended(pid, pidfd)
    try:
        if not is_right():
            process.release()
            raise ProcessLookupError(f"process {pid} is another by now")
        yield process
    finally:
        if not process._released:  # noqa: SLF001 - its other half
            process.signal(signal.SIGKILL)
            await shielded(process.wait())
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        _forget_released()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The clean environment programs get: where to find programs and the user's own places, C locale, and `extra`."""
    path = os.environ.get("PATH", os.defpath).split(":")
    path += [d for d in ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin") if d not in path]
    base = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return base | {"PATH": ":".join(path), "LANG": "C.UTF-8"} | dict(extra or {})


def find_program(name: Argument) -> str | None:
    """Where the program is, looked up where `run` and `spawn` look, or None."""
    return shutil.which(os.fspath(name), path=environment()["PATH"])


@asynccontextmanager
async def spawn(  # noqa: PLR0913 - keywords of one call
    argv: Sequence[Argument],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
    pass_fds: Sequence[int] = (),
    grace: float = 2.0,
    hint: str = "",
    detached: bool = False,
) -> AsyncIterator[Process]:
    """Start a program that lives as long as the context. `env` is added to the clean environment; `stdin`, `stdout` and `stderr` are
    `PIPE`, `DEVNULL` or a file descriptor. On exit what is still running gets SIGTERM, `grace` seconds later SIGKILL, and is reaped. With
    `detached` it does not die with this process, and `release` lets it live on.

    Raises ProgramNotFoundError (with `hint`) and ProcessError where it cannot be started."""
    process = _start(
        argv, env=env, cwd=cwd, stdio=(stdin, stdout, stderr), pass_fds=pass_fds, hint=hint, detached=detached
    )
    try:
        await process._connect()  # noqa: SLF001 - its other half
        yield process
    finally:
        await shielded(process._close(grace))  # noqa: SLF001


def _start(
    argv: Sequence[Argument],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    stdio: tuple[int, int, int],
    pass_fds: Sequence[int],
    hint: str,
    detached: bool,
) -> Process:
    _forget_released()
    words = tuple(os.fspath(a) for a in argv)
    program = find_program(words[0])
    if program is None:
        raise ProgramNotFoundError(
            f"cannot run {words[0]}: the program is not on this host",
            hint=hint or f"Install the package that has `{words[0]}`; `firebrick doctor` names it.",
            argv=words,
        )
    try:
        popen = subprocess.Popen(
            [*([] if detached else _tether()), program, *words[1:]],
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            env=environment(env),
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise ProcessError(f"cannot start {shlex.join(words)}: {error}", hint=hint, argv=words) from error
    return Process(popen, words)


def _tether() -> tuple[str, ...]:
    """What becomes a program that dies with us: the kernel sends it the death signal when the thread that started it ends, which is the event loop's.

    `setpriv` does the same, in several times the time: its loader and libraries are most of what the start of a small program costs."""
    return (str(_TETHER), str(os.getpid())) if _TETHERED else (_SETPRIV, "--pdeathsig", "KILL", "--")


async def run(  # noqa: PLR0913 - keywords of one call
    argv: Sequence[Argument],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: bytes | None = None,  # noqa: A002 - the word subprocess.run uses
    timeout: float | None = None,
    limit: int = 64 << 20,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    on_stderr: Callable[[bytes], None] | None = None,
    check: bool = True,
    hint: str = "",
) -> Completed:
    """Run a program to its end.

    `timeout` is in seconds; `limit` is the most bytes of output that are kept; `stdin` may be a file descriptor to read from, where there is no
    `input`, and `stdout` one to write to instead; `on_stderr` sees the error output as it comes. With `check` a status other than 0 raises
    ProcessError, which ends with the program's last words and carries `hint`. Raises ProgramNotFoundError, ProcessTimeoutError, OutputLimitError.
    Cancelling kills the program."""
    feed = stdin if input is None else PIPE
    async with spawn(argv, env=env, cwd=cwd, stdin=feed, stdout=stdout, stderr=PIPE, hint=hint) as process:
        tail = bytearray()
        try:
            async with asyncio.timeout(timeout):
                out = await _talk(process, input, limit, tail, on_stderr)
                returncode = await process.wait()
        except TimeoutError as error:
            if timeout is None:
                raise
            message = f"{shlex.join(process.argv)} took longer than {timeout:g} s"
            raise ProcessTimeoutError(
                _with_tail(message, tail), hint=hint, argv=process.argv, stderr=_text(tail)
            ) from error
    done = Completed(process.argv, returncode, out, bytes(tail))
    if check and returncode != 0:
        raise failure(done, hint=hint)
    return done


def failure(done: Completed, *, hint: str = "") -> ProcessError:
    """The error a failed `run` with `check` raises, for callers that look at the status themselves first."""
    status = (
        f"was killed by {signal.Signals(-done.returncode).name}"
        if done.returncode < 0
        else f"failed with status {done.returncode}"
    )
    message = _with_tail(f"{shlex.join(done.argv)} {status}", done.stderr)
    return ProcessError(message, hint=hint, argv=done.argv, returncode=done.returncode, stderr=_text(done.stderr))


async def _talk(
    process: Process, data: bytes | None, limit: int, tail: bytearray, on_stderr: Callable[[bytes], None] | None
) -> bytes:
    """Feed and read at once, so that neither side waits for the other for ever. Something the program left behind may still hold a pipe
    when it has ended: readers get a moment for what is in the pipe, and are not waited for any longer."""
    out = bytearray()
    task = asyncio.current_task()
    assert task is not None
    asked = task.cancelling()
    try:
        async with asyncio.TaskGroup() as group:
            readers = {
                group.create_task(_collect(process, out, limit), name="process-stdout"),
                group.create_task(_drain(process, tail, on_stderr), name="process-stderr"),
            }
            if data is not None:
                group.create_task(_feed(process, data), name="process-stdin")
            await process.wait()
            await asyncio.wait(readers, timeout=_LINGER_S)
            for reader in readers:
                reader.cancel()
    except ExceptionGroup as errors:
        while task.cancelling() > asked:  # before Python 3.13 a group that fails late leaves its request behind
            task.uncancel()
        raise errors.exceptions[0] from None
    return bytes(out)


async def _feed(process: Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _collect(process: Process, out: bytearray, limit: int) -> None:
    while process.stdout is not None and (chunk := await process.stdout.read(1 << 16)):
        out += chunk
        if len(out) > limit:
            raise OutputLimitError(f"{shlex.join(process.argv)} wrote more than {limit} bytes", argv=process.argv)


async def _drain(process: Process, tail: bytearray, on_stderr: Callable[[bytes], None] | None) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(1 << 16):
        tail += chunk
        del tail[:-_TAIL_BYTES]
        if on_stderr is not None:
            on_stderr(chunk)


def _text(tail: bytes | bytearray) -> str:
    return bytes(tail).decode(errors="replace")


def _with_tail(message: str, tail: bytes | bytearray) -> str:
    lines = _text(tail).strip().splitlines()[-_TAIL_LINES:]
    return message + (":\n" + "\n".join(lines) if lines else "")
