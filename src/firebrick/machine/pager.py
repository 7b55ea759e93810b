"""The page server of one restored Firecracker machine: its memory, served page by page over userfaultfd as the guest touches it.

    async with serving(root, memory=file, layers=[diff], seat=seat) as pager:
        ...load the snapshot with the backend Uffd and the path SOCKET...

The program (pager/ in the source tree) is given everything as open descriptors and runs as the seat's user, who need not be able to read a snapshot.
Firecracker stands still for ever when its page server dies: whoever drives it watches `Pager.ended`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from firebrick import process
from firebrick.machine.drafts import draft_name
from firebrick.machine.errors import HostError, SnapshotError
from firebrick.machine.seat import Seat
from firebrick.task import shielded

PROGRAM: Final = Path(__file__).parent / "bin" / "firebrick-pager"
SOCKET: Final = "uffd.sock"
PAGE: Final = 4096
_LIST: Final = re.compile(rb"firebrick-prefetch 1\n((?:[0-9]{1,12} [0-9]{1,12}\n)*)end ([0-9]{1,7})\n")
_MOST_LIST_BYTES: Final = 2 << 20
_MOST_WORDS: Final = 4096
_GRACE_S: Final = 2.0


class Pager:
    """A page server that runs. `ended` is done when it has ended: with None when its machine ended first, else with what went wrong, and
    then the machine must be killed."""

    def __init__(self, running: process.Process, record: _Record | None) -> None:
        self._running = running
        self._record = record
        self.pid: Final[int] = running.pid
        self.ended: Final[asyncio.Task[HostError | None]] = asyncio.create_task(_ending(running), name="pager-ended")

    async def recorded(self) -> Path:
        """Write the prefetch list of what was served until now, and record no more. For a machine that runs already; idempotent.

        Raises HostError where the page server has ended without a list."""
        if self._record is None:
            raise ValueError("this page server records nothing")
        self._running.signal(signal.SIGUSR1)
        return await self._record.written()


@asynccontextmanager
async def serving(
    root: Path,
    *,
    memory: Path,
    layers: Sequence[Path] = (),
    seat: Seat | None = None,
    prefetch: Path | None = None,
    record: Path | None = None,
    around: int | None = None,
) -> AsyncIterator[Pager]:
    """Serve the memory of the machine that lives in the directory `root`: `memory`, and over it `layers`, each with holes where the one below
    holds. None of the files may change while this lasts. The socket `root`/SOCKET is there and listens from the first moment; only the user of
    `seat` (without one: of this process) is served.

    `prefetch` is a list to replay; `record` is where to write one, in `recorded` or at the end: then each page is noted by itself unless `around`
    says how many bytes (a power of two, 4 KiB to 2 MiB) to copy at each fault. The two exclude each other.

    On exit the page server has ended and the socket is gone. Raises SnapshotError where a file cannot be opened, HostError where it cannot be
    started."""
    if record is not None:
        around = around or PAGE
    with ExitStack() as ours:
        ours.callback(_without_socket, root)
        async with contextlib.AsyncExitStack() as stack:
            with ExitStack() as given:
                argv, fds = _arguments(given, root, memory, layers, prefetch, seat)
                if around is not None:
                    argv += ["--around", str(around)]
                notes = await stack.enter_async_context(_recording(record)) if record is not None else None
                if notes is not None:
                    argv += ["--record", str(notes.fd)]
                    fds.append(notes.fd)
                running = await stack.enter_async_context(
                    process.spawn(argv, stderr=process.PIPE, pass_fds=fds, grace=_GRACE_S, hint="Run: make agent")
                )
                if notes is not None:
                    notes.given()
            pager = Pager(running, notes)
            stack.push_async_callback(shielded, _end(running, pager, notes))
            yield pager


def _without_socket(root: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # a VMM that was taken over can have put a directory there: it goes with the room
        (root / SOCKET).unlink()


async def _end(running: process.Process, pager: Pager, record: _Record | None) -> None:
    """It writes its list when it is told to end."""
    await running.terminate(_GRACE_S)
    await pager.ended
    if record is not None:
        with contextlib.suppress(HostError):
            await record.written()


def _arguments(
    given: ExitStack,
    root: Path,
    memory: Path,
    layers: Sequence[Path],
    prefetch: Path | None,
    seat: Seat | None,
) -> tuple[list[str], list[int]]:
    """The command line, and the descriptors it speaks of, which are closed with `given`."""
    files = [("--memory", memory), *(("--layer", layer) for layer in layers)]
    if prefetch is not None:
        files.append(("--prefetch", prefetch))
    listener = given.enter_context(_listening(root, seat))
    options = [("--listen", listener.fileno())]
    options += [(option, given.enter_context(_opened(path))) for option, path in files]
    argv = [str(PROGRAM)]
    for option, fd in options:
        argv += [option, str(fd)]
    if seat is not None:
        argv += ["--user", str(seat.uid)]
    return argv, [fd for _, fd in options]


@contextlib.contextmanager
def _listening(root: Path, seat: Seat | None) -> Iterator[socket.socket]:
    """The socket, at a path of any length, connected to by one user."""
    directory = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            near = f"/proc/self/fd/{directory}/{SOCKET}"
            Path(near).unlink(missing_ok=True)
            listener.bind(near)
            Path(near).chmod(0o600)
            if seat is not None:
                os.chown(near, seat.uid, seat.gid)
            listener.listen(4)
            yield listener
    finally:
        os.close(directory)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise SnapshotError(f"cannot open {path} to serve a machine's memory: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


async def _ending(running: process.Process) -> HostError | None:
    """What the page server ended with. Its last words are kept, all are read."""
    words = bytearray()
    assert running.stderr is not None
    while piece := await running.stderr.read(1 << 12):
        words += piece
        del words[:-_MOST_WORDS]
    status = await running.wait()
    if status == 0:
        return None
    said = words.decode(errors="replace").strip().removeprefix("firebrick-pager: ")
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return HostError(
        f"the page server {how}" + (f": {said}" if said else ""),
        hint="The machine's memory is out of reach: kill the machine and restore it again.",
    )


class _Record:
    """A prefetch list on its way from the page server, which is not trusted with a path, to its file."""

    def __init__(self, target: Path, fd: int, reader: asyncio.StreamReader) -> None:
        self._target = target
        self.fd = fd
        self._written = asyncio.create_task(self._write(reader), name="pager-record")

    def given(self) -> None:
        """The page server has its end: it must be the only one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def written(self) -> Path:
        return await asyncio.shield(self._written)

    async def close(self) -> None:
        self.given()
        self._written.cancel()
        await asyncio.gather(self._written, return_exceptions=True)

    async def _write(self, reader: asyncio.StreamReader) -> Path:
        text = bytearray()
        while len(text) <= _MOST_LIST_BYTES and (piece := await reader.read(1 << 16)):
            text += piece
        if not is_list(bytes(text)):
            raise HostError(f"cannot write {self._target}: the page server ended before it gave its list")
        new = self._target.with_name(draft_name(self._target.name))
        try:
            new.write_bytes(text)
            return new.replace(self._target)
        except OSError as error:
            raise HostError(f"cannot write {self._target}: {error.strerror}") from error


@asynccontextmanager
async def _recording(target: Path) -> AsyncIterator[_Record]:
    read, write = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    record = _Record(target, write, reader)
    try:
        yield record
    finally:
        await record.close()
        transport.close()
        await asyncio.sleep(0)  # it lets go of its pipe in the loop's next round


def is_list(text: bytes) -> bool:
    """Whether this is a whole prefetch list."""
    found = _LIST.fullmatch(text) if len(text) <= _MOST_LIST_BYTES else None
    return found is not None and found[1].count(b"\n") == int(found[2])
