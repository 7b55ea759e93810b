"""What the double does for each request."""

from __future__ import annotations

import asyncio
import errno
import signal
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from firebrick.guest import message, protocol
from firebrick.guest.double import ports
from firebrick.guest.double.disk import MemoryDisk, Node, Refusal
from firebrick.guest.double.task import Program, Running, Task
from firebrick.guest.double.trees import DiskSource, DiskTarget
from firebrick.guest.protocol import Channel

if TYPE_CHECKING:
    from firebrick.guest.double.exchange import Exchange

_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {b"PATH": _PATH, b"HOME": b"/root", b"USER": b"root", b"LOGNAME": b"root"}
_CHUNK = 1 << 16
_FEW = 16


async def answer(exchange: Exchange, request: message.Request) -> message.FromGuestStream:
    """Do what a request asks for and return its last message. Raises Refusal where that is an error."""
    match request:
        case message.Exec():
            return await _exec(exchange, request)
        case message.Connect():
            return await ports.connect(exchange, request)
        case message.Listen():
            return await ports.listen(exchange, request)
        case message.Accept():
            return await ports.accept(exchange, request)
        case message.Seed():
            exchange.session.guest.seed = request
        case message.Stat(path=path, follow=follow):
            node = exchange.session.guest.disk.find(path, follow=follow)
            return node.entry(path.rstrip(b"/").rpartition(b"/")[2])
    return await _move_data(exchange, exchange.session.guest.disk, request)


async def _move_data(exchange: Exchange, disk: MemoryDisk, request: message.Request) -> message.Done:
    match request:
        case message.Write():
            return await _write(exchange, disk, request)
        case message.Read():
            return await _read(exchange, disk, request)
        case message.List(path=path):
            return await _list(exchange, disk, path)
        case message.Upload(path=path, uid=uid, gid=gid):
            return await _upload(exchange, DiskTarget(disk, path, uid, gid))
        case message.Download(path=path, exclude=exclude):
            return await _download(exchange, DiskSource(disk, path, exclude))
    return _change(disk, request)


def _change(disk: MemoryDisk, request: message.Request) -> message.Done:
    match request:
        case message.Mkdir(path=path, mode=mode, parents=parents):
            disk.mkdir(path, mode, parents=parents)
        case message.Remove(path=path, recursive=recursive, missing_ok=missing_ok):
            disk.remove(path, recursive=recursive, missing_ok=missing_ok)
        case message.Move(source=source, target=target, overwrite=overwrite):
            disk.move(source, target, overwrite=overwrite)
        case message.Symlink(path=path, target=target):
            disk.put(path, Node("symlink", 0o777, mtime_ns=time.time_ns(), target=target))
        case message.Chmod(path=path, mode=mode):
            disk.find(path).mode = mode
    return message.Done()


# --- files and trees ---


async def _write(exchange: Exchange, disk: MemoryDisk, request: message.Write) -> message.Done:
    node = disk.open(request.path, parents=request.parents, truncate=not request.append)
    node.mode = node.mode if request.mode is None else request.mode
    node.uid = node.uid if request.uid is None else request.uid
    node.gid = node.gid if request.gid is None else request.gid
    node.mtime_ns = time.time_ns()
    written = 0
    async for piece in exchange.input:
        node.content.write(node.content.size, piece)
        written += len(piece)
    return message.Done(bytes=written)


async def _read(exchange: Exchange, disk: MemoryDisk, request: message.Read) -> message.Done:
    node = disk.file(request.path)
    size = node.content.size
    end = size if request.limit is None else min(size, request.offset + request.limit)
    at = request.offset
    while at < end:
        piece = node.content.read(at, min(_CHUNK, end - at))
        await exchange.send(Channel.OUTPUT, piece)
        at += len(piece)
    return message.Done(bytes=at - request.offset)


async def _list(exchange: Exchange, disk: MemoryDisk, path: bytes) -> message.Done:
    for name, node in sorted(disk.directory(path).names.items()):
        await exchange.send(Channel.OUTPUT, message.pack(node.entry(name)))
    return message.Done()


async def _upload(exchange: Exchange, target: DiskTarget) -> message.Done:
    async for piece in exchange.input:
        target.feed(piece)
    count = target.finish()
    return message.Done(entries=count.entries, bytes=count.bytes)


async def _download(exchange: Exchange, source: DiskSource) -> message.Done:
    for block in source.blocks():
        await exchange.send(Channel.OUTPUT, block)
    return message.Done(entries=source.count.entries, bytes=source.count.bytes)


# --- programs ---


async def _exec(exchange: Exchange, request: message.Exec) -> message.Exit:
    guest = exchange.session.guest
    _prepare(guest.disk, request.before)
    program = find_program(guest.programs, guest.disk, request.argv)
    cwd = request.cwd or b"/"
    guest.disk.directory(cwd)
    environment = {} if request.clear_env else {**_ENVIRONMENT, **({b"TERM": b"xterm"} if request.pty else {})}
    error = Channel.OUTPUT if request.merge or request.pty else Channel.ERROR
    guest.next_pid += 1
    task = Task(
        argv=request.argv,
        env={**environment, **request.env},
        cwd=cwd,
        disk=guest.disk,
        read=exchange.input.read,
        out=lambda data: exchange.send(Channel.OUTPUT, data),
        err=lambda data: exchange.send(error, data),
        programs=guest.programs,
        user=request.user or "root",
        pid=guest.next_pid,
        size=request.pty,
        dial=guest.dial,
    )
    exchange.waits = False
    if not exchange.takes_input():
        exchange.input.end()
    await exchange.session.send(protocol.control(exchange.id, message.Started(pid=task.pid)))
    exchange.task = task
    end = await _run(exchange, Running(program, task), request.timeout_ms)
    return replace(end, listing=_listing(guest.disk, request))


def _prepare(disk: MemoryDisk, before: tuple[message.Put | message.Move, ...]) -> None:
    try:
        for change in before:
            match change:
                case message.Put(path=path, data=data, mode=mode):
                    node = disk.open(path, parents=True, truncate=True)
                    node.mode = node.mode if mode is None else mode
                    node.content.write(0, data)
                case message.Move(source=source, target=target, overwrite=overwrite):
                    disk.move(source, target, overwrite=overwrite)
    except Refusal as refusal:
        raise Refusal("unprepared", str(refusal), refusal.number) from refusal


def _listing(disk: MemoryDisk, request: message.Exec) -> tuple[message.Entry, ...] | None:
    if request.listing is None or request.detach:
        return None
    try:
        names = disk.directory(request.listing).names
    except Refusal:
        return None
    return tuple(node.entry(name) for name, node in sorted(names.items())) if len(names) <= _FEW else None


async def _run(exchange: Exchange, running: Running, timeout_ms: int | None) -> message.Exit:
    began = time.monotonic_ns()
    over = asyncio.Event()
    clock = asyncio.create_task(
        _end_in_time(running, timeout_ms, exchange.session.guest.grace_s, over), name=f"double-{exchange.id}-clock"
    )
    exchange.running = running
    try:
        code, number = await running.end()
    finally:
        exchange.running = None
        clock.cancel()
    return message.Exit(
        code=code,
        signal=number,
        timed_out=over.is_set(),
        oom=False,
        cpu_us=0,
        memory_peak_bytes=0,
        wall_us=(time.monotonic_ns() - began) // 1000,
    )


async def _end_in_time(running: Running, timeout_ms: int | None, grace_s: float, over: asyncio.Event) -> None:
    if timeout_ms is None:
        return
    await asyncio.sleep(timeout_ms / 1000)
    over.set()
    running.signal(signal.SIGTERM)
    await asyncio.sleep(grace_s)
    running.signal(signal.SIGKILL)


def find_program(programs: dict[str, Program], disk: MemoryDisk, argv: tuple[bytes, ...]) -> Program:
    """The program a command line names: by the path it is registered with, by its bare name, or by its path in one of the directories of PATH."""
    if not argv:
        raise Refusal("bad_request", "cannot run a command without a name")
    if argv[0].startswith(b"/") and argv[0].decode(errors="replace") in programs:
        return programs[argv[0].decode()]
    directory, _, name = argv[0].rpartition(b"/")
    if (not directory or directory in _PATH.split(b":")) and name.decode(errors="replace") in programs:
        return programs[name.decode()]
    if directory:
        node = disk.find(argv[0])
        if node.kind == "directory":
            raise Refusal("permission", f"cannot run {argv[0]!r}: it is a directory", errno.EACCES)
        raise Refusal(
            "not_executable", f"cannot run {argv[0]!r}: the double runs only what is registered", errno.ENOEXEC
        )
    raise Refusal("not_found", f"cannot run {argv[0]!r}: no such program", errno.ENOENT)
