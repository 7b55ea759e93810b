"""The host end of the agent protocol: commands, files, trees and ports of one guest.

    async with Agent.connect(stream, Identity.fresh("builder"), timeout=10) as agent:
        done = await agent.run(["uname", "-r"], check=True)

Any number of tasks may use an agent at once. A call that is cancelled leaves nothing behind, in the guest neither. When the connection
is lost, every call that waits, and every later one, raises ChannelError with the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from os import fsencode
from pathlib import Path, PurePath
from typing import Self, Unpack

from firebrick.guest import message, protocol
from firebrick.guest.connection import Connection, connected
from firebrick.guest.errors import VersionError
from firebrick.guest.execution import (
    Completed,
    ExecOptions,
    ExitStatus,
    Process,
    Text,
    exec_request,
    failure,
    gather,
    running,
)
from firebrick.guest.files import Files
from firebrick.guest.listener import Listener, listening
from firebrick.guest.message import Entry, Hello, Move, PtySize, Put
from firebrick.guest.output import Output
from firebrick.guest.seed import seed as seed_machine
from firebrick.guest.stream import ByteStream, SocketStream, open_stream, stream_from
from firebrick.guest.transfer import archive, download, upload, upload_entries
from firebrick.guest.tree import Record, TreeCount, TreeLimits
from firebrick.guest.tree_pack import TreeEntry
from firebrick.guest.tunnel import Tunnel

__all__ = [
    "Agent",
    "ByteStream",
    "Completed",
    "Entry",
    "ExecOptions",
    "ExitStatus",
    "Files",
    "GuestUsage",
    "Hello",
    "Identity",
    "Listener",
    "Move",
    "Output",
    "Process",
    "PtySize",
    "Put",
    "Record",
    "SocketStream",
    "TreeCount",
    "TreeEntry",
    "TreeLimits",
    "Tunnel",
    "open_stream",
    "stream_from",
]

RUN_LIMIT = 16 << 20
"""Bytes of output `Agent.run` takes, of each channel, unless told otherwise."""

_HELLO_PATIENCE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes a machine itself and no copy of another. `machine_id` has 32 hex digits; `clock_offset_ns` is how far its clock is before that of
    this host when it gets the identity."""

    entropy: bytes = field(repr=False)
    hostname: str
    machine_id: str
    clock_offset_ns: int = 0

    @classmethod
    def fresh(cls, hostname: str, *, machine_id: str = "") -> Self:
        """A new identity, with the clock of this host. With `machine_id` the machine that has it stays who it is."""
        return cls(
            entropy=os.urandom(protocol.MAX_ENTROPY // 2),
            hostname=hostname,
            machine_id=machine_id or uuid.uuid4().hex,
        )


@dataclass(frozen=True, slots=True)
class GuestUsage:
    """What the user's processes have used of a machine, all its life; the agent itself is not in it."""

    cpu_s: float
    memory_bytes: int
    memory_peak_bytes: int
    processes: int
    scratch_used_bytes: int
    scratch_total_bytes: int


class Agent:
    """A guest that has its identity and takes requests. Made by `Agent.connect`.

    `hello` is what the agent said of itself; `files` are the operations on single files."""

    def __init__(self, connection: Connection, hello: Hello) -> None:
        self._connection = connection
        self.hello = hello
        self.files = Files(connection)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, stream: ByteStream, identity: Identity, *, timeout: float, takes_over: bool = False
    ) -> AsyncIterator[Self]:
        """Greet the agent behind `stream` and give the machine its identity, within `timeout` seconds.

        The stream belongs to the agent from now on and is closed at the end, whatever happens. Commands of an earlier connection that
        were not detached are gone; a machine that was quiesced runs again. With `takes_over` that earlier connection may be one whose end the agent
        has not noticed: then what it ran goes on, as if it had been detached.

        Raises TimeoutError when the agent does not answer in time, VersionError when it speaks another protocol, ChannelError when the
        stream is lost."""
        async with connected(stream) as connection:
            async with asyncio.timeout(timeout):
                hello = await connection.greet(_HELLO_PATIENCE)
                _check_version(hello)
                if takes_over and not hello.quiesced:
                    # An identity in the midst of silence makes an agent forget all streams of the connection, whoever it believes to have it.
                    await connection.ask(message.Quiesce(), message.Quiesced)
                await connection.ask(_identity_message(identity), message.IdentityDone)
            yield cls(connection, hello)

    # --- commands ---

    def exec(self, argv: Sequence[Text], **options: Unpack[ExecOptions]) -> AbstractAsyncContextManager[Process]:
        """Run a command, no shell. The context begins when it has started and, unless it is detached, ends with it dead.

        Raises AgentError when it cannot be started: FileMissingError, NotExecutableError, NoSuchUserError, PreparationError and others."""
        return running(self._connection, exec_request(argv, options))

    async def run(
        self,
        argv: Sequence[Text],
        *,
        input: bytes = b"",  # noqa: A002 - the word of subprocess.run
        check: bool = False,
        limit: int = RUN_LIMIT,
        **options: Unpack[ExecOptions],
    ) -> Completed:
        """Run a command to its end and gather its output. The options are those of `exec`.

        Raises OutputTooLargeError when it writes more than `limit` bytes on one channel (it is killed then), and with `check`
        CommandError when it does not exit with status 0."""
        if input:
            options["stdin"] = True
        async with self.exec(argv, **options) as process:
            done = await gather(process, input, limit)
        if check and not done.status.ok:
            raise failure(argv, done)
        return done

    # --- trees ---

    async def upload(
        self,
        source: Path,
        target: Text,
        *,
        only: Iterable[PurePath] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        exclude: Iterable[Text] = (),
    ) -> TreeCount:
        """Send the local directory `source` to the directory `target` in the guest, made if missing.

        `only` are relative paths: just these, what is below them and the directories that lead there. `exclude` are patterns of the
        protocol. `uid` and `gid` own everything there; None keeps the numbers of the host. Links are sent as links, holes as
        holes. Raises TreeError for what cannot be read here, AgentError for what fails there."""
        return await upload(self._connection, source, target, only=only, uid=uid, gid=gid, exclude=exclude)

    async def upload_entries(self, entries: Iterable[TreeEntry], target: Text) -> None:
        """As `upload`, of entries that are nowhere as they shall be there: names, modes and owners are what the records say, of the target itself
        too, which the first record is about. `entries` is asked in threads, one at a time. Raises what it raises, and AgentError."""
        await upload_entries(self._connection, entries, target)

    async def download(
        self,
        source: Text,
        target: Path,
        *,
        exclude: Iterable[Text] = (),
        limits: TreeLimits = TreeLimits(),  # noqa: B008 - frozen
    ) -> TreeCount:
        """Bring the directory or file `source` of the guest to `target`, which is made, or filled if it is a directory.

        Nothing is written outside `target`, owners and set-id bits are not taken over, `limits` bound what a guest can make the host
        store. Symbolic links are kept as they are and may say anything: do not follow them. What was written before an error stays.

        Raises TreeError for a tree that is damaged, hostile, too large or cannot be written here, AgentError for what fails there."""
        return await download(self._connection, source, target, exclude=exclude, limits=limits)

    async def archive(
        self,
        source: Text,
        target: int,
        *,
        exclude: Iterable[Text] = (),
        limits: TreeLimits = TreeLimits(),  # noqa: B008 - frozen
    ) -> TreeCount:
        """Write the directory `source` of the guest as a tar archive to the file descriptor `target`, with the owners and modes it has there. What
        is written is an archive without an end until this returns.

        Raises TreeError and AgentError as `download` does; a reader that goes away is a TreeError."""
        return await archive(self._connection, source, target, exclude=exclude, limits=limits)

    # --- ports ---

    def connect_port(self, port: int, host: str = "127.0.0.1") -> AbstractAsyncContextManager[Tunnel]:
        """A TCP connection made inside the guest. Raises AgentError when nothing listens there."""
        return self._tunnel(message.Connect(port=port, host=host))

    def connect_unix(self, path: Text) -> AbstractAsyncContextManager[Tunnel]:
        """A connection to a unix stream socket in the guest."""
        return self._tunnel(message.Connect(unix=fsencode(path)))

    @contextlib.asynccontextmanager
    async def _tunnel(self, request: message.Connect) -> AsyncIterator[Tunnel]:
        async with self._connection.stream(request) as stream:
            await stream.first()
            yield Tunnel(stream)

    def listen(self, port: int, address: str = "127.0.0.1") -> AbstractAsyncContextManager[Listener]:
        """Listen inside the guest, on an address of its loopback (127.0.0.0/8 or ::1), as long as the context lasts; its connections come here.
        Port 0 is any that is free: `Listener.port`. Connections are in no snapshot, and neither is what listens: whoever restores or forks the
        machine asks again.

        Raises AgentError: FileExistsInGuestError where something listens there, BadRequestError for another address, BusyError for
        too many listeners, UnsupportedError for an agent that does not know how."""
        return listening(self._connection, message.Listen(port=port, host=address))

    def listen_unix(self, path: Text) -> AbstractAsyncContextManager[Listener]:
        """As `listen`, on a new unix stream socket in the guest, which everybody there may use. It is removed at the end."""
        return listening(self._connection, message.Listen(unix=fsencode(path)))

    # --- the machine ---

    async def ping(self) -> float:
        """Ask for an answer and return how many seconds it took."""
        began = time.monotonic()
        token = time.monotonic_ns()
        await self._connection.ask(message.Ping(token=token), message.Pong, expected=message.Pong(token=token))
        return time.monotonic() - began

    async def usage(self) -> GuestUsage:
        report = await self._connection.ask(message.Usage(), message.UsageReport)
        return GuestUsage(
            cpu_s=report.cpu_us / 1e6,
            memory_bytes=report.memory_bytes,
            memory_peak_bytes=report.memory_peak_bytes,
            processes=report.processes,
            scratch_used_bytes=report.scratch_used_bytes,
            scratch_total_bytes=report.scratch_total_bytes,
        )

    async def identify(self, identity: Identity) -> None:
        """Give the machine another identity while it runs: names, entropy, clock. What runs goes on, and may have seen the old names."""
        await self._connection.ask(_identity_message(identity), message.IdentityDone)

    async def seed(self, seed: bytes, modules: Sequence[Text] = ()) -> None:
        """Have what is started from now on read random numbers, from `getrandom` and the random devices, that follow from `seed` (1 to 512 bytes)
        and from who asks: the same each time, and so for nothing that is to be secret. Once a machine; its copies have their own again. `modules`
        are files in the guest, of the kernel modules fuse and cuse, which are removed.

        Raises AgentError, and random numbers are what they were: UnsupportedError where agent or kernel do not know
        how, FileExistsInGuestError for a second seed."""
        paths = tuple(fsencode(path) for path in modules)
        await seed_machine(self._connection, message.Seed(seed=seed, modules=paths))

    async def quiesce(self) -> None:
        """Freeze the user's processes and sync the disks, for a snapshot. When this returns no byte is on its way in either direction,
        and none will be until `resume`: other calls wait that long. A quiesce that fails or is cancelled is undone."""
        await self._connection.quiesce()

    async def resume(self) -> None:
        """Undo `quiesce`. Idempotent."""
        await self._connection.resume()

    async def part(self) -> None:
        """Give the byte stream up between `quiesce` and `resume`, because it will be lost. Nothing else is: `rejoin` is next."""
        await self._connection.part()

    @property
    def parted(self) -> bool:
        return self._connection.parted

    async def rejoin(self, stream: ByteStream, identity: Identity) -> None:
        """Go on over `stream`, which leads to the same machine; `identity` is the one it was given. Raises ChannelError where that stream is lost
        too, or the machine another: then `stream` is closed."""
        await self._connection.rejoin(stream, identity.machine_id)

    def lose(self, cause: BaseException) -> None:
        """The machine is known to have ended: everything that waits for it is told."""
        self._connection.fail(cause)

    async def poweroff(self, grace: float = 2.0) -> None:
        """Tell the machine to end: SIGTERM to everything, SIGKILL after `grace` seconds, sync, power off. Returns at once; the
        connection ends with the machine."""
        await self._connection.tell(message.Poweroff(grace_ms=round(grace * 1000)))


def _check_version(hello: Hello) -> None:
    if hello.minimum > protocol.VERSION or hello.version < protocol.MINIMUM_VERSION:
        raise VersionError(
            f"the agent speaks versions {hello.minimum} to {hello.version} of the protocol, "
            f"this host {protocol.MINIMUM_VERSION} to {protocol.VERSION}",
            hint="Make the template anew with the agent of this release.",
        )


def _identity_message(identity: Identity) -> message.SetIdentity:
    """Of this moment: make it right before it is sent, so that the machine's clock is late by no more than the way."""
    return message.SetIdentity(
        entropy=identity.entropy,
        realtime_ns=time.time_ns() + identity.clock_offset_ns,
        hostname=identity.hostname,
        machine_id=identity.machine_id,
    )
