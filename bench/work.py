"""Rows about what is done in a machine: commands, and bytes in and out."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench import floor
from bench.bed import Bed
from bench.machines import BUSYBOX, snapshot, started_fork
from bench.row import Row, compared
from firebrick.machine import Machine

MIB = 1 << 20
_STDOUT_MIB = 64
_UPLOAD_MIB = 256
_ROUNDS = 3
_PINGS = 100
_EXECS = 25
_LOOP = 100
_CHUNK = 65536

_DD_OUT = f"dd if=/dev/zero bs={_CHUNK} count={_STDOUT_MIB * MIB // _CHUNK} 2>/dev/null"
_DD_IN = f"dd of=/tmp/upload bs={_CHUNK} count={_UPLOAD_MIB * MIB // _CHUNK} iflag=fullblock <&3 2>/dev/null; rm /tmp/upload; echo done"


async def commands(bed: Bed) -> list[Row]:
    """Round trips, in a fork of each side."""
    async with snapshot(bed) as taken, AsyncExitStack() as stack:
        fork, _ = await started_fork(stack, taken, bed.home.root)
        with floor.template(bed.bare) as template, template.forked() as bare:
            bare.command(floor.FIRST_COMMAND)
            return [await _exec(fork), await _sleeps(fork), await _pings(fork, bare)]


async def _exec(fork: Machine) -> Row:
    """The floor is what the guest's own shell needs for fork, exec and wait: a loop of many less a loop of none."""
    inside, outside = [], []
    for _ in range(_ROUNDS + 1):
        empty, full = await _timed_loop(fork, 0), await _timed_loop(fork, _LOOP)
        inside.append((full - empty) / _LOOP * 1000)
        for _ in range(_EXECS):
            started = time.monotonic()
            await fork.run(["/bin/true"], check=True)
            outside.append((time.monotonic() - started) * 1000)
    return compared("exec round trip", "ms", inside[1:], outside[_EXECS:], 1.3)


async def _timed_loop(fork: Machine, count: int) -> float:
    started = time.monotonic()
    await fork.run(["/bin/sh", "-c", f"i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done"], check=True)
    return time.monotonic() - started


async def _sleeps(fork: Machine) -> Row:
    took = []
    for _ in range(_ROUNDS):
        started = time.monotonic()
        await asyncio.gather(*(fork.run([BUSYBOX, "sleep", "1"], check=True) for _ in range(10)))
        took.append(time.monotonic() - started)
    return compared("ten times sleep 1, at once", "s", [1.0], took, 1.3)


async def _pings(fork: Machine, bare: floor.Bare) -> Row:
    bare.send(b"exec cat <&3 >&3\n")
    raw, own = [], []
    for _ in range(_ROUNDS):
        for _ in range(_PINGS):
            started = time.monotonic()
            bare.command(b"ping............")
            raw.append((time.monotonic() - started) * 1000)
        for _ in range(_PINGS):
            started = time.monotonic()
            await fork.agent.ping()
            own.append((time.monotonic() - started) * 1000)
    return compared("ping", "ms", raw, own, 3.0)


async def bytes_moved(bed: Bed) -> list[Row]:
    """Throughput, in machines with room for a large file in memory."""
    large = bed.larger()
    async with snapshot(large) as taken, AsyncExitStack() as stack:
        fork, _ = await started_fork(stack, taken, bed.home.root)
        await fork.run(["mount", "-t", "tmpfs", "-o", "size=90%", "memory", "/mnt"], check=True)
        with floor.template(large.bare) as template, template.forked() as bare:
            bare.command(floor.FIRST_COMMAND)
            return [await _stdout(fork, bare), await _upload(fork, bare, bed.home.root / "upload")]


async def _stdout(fork: Machine, bare: floor.Bare) -> Row:
    raw, own = [], []
    for _ in range(_ROUNDS):
        started = time.monotonic()
        bare.send(f"{_DD_OUT}\n".encode())
        bare.receive(_STDOUT_MIB * MIB)
        raw.append(_STDOUT_MIB / (time.monotonic() - started))
        started = time.monotonic()
        async with fork.exec([BUSYBOX, "sh", "-c", _DD_OUT]) as process:
            size = 0
            async for chunk in process.stdout:
                size += len(chunk)
        assert size == _STDOUT_MIB * MIB, size
        own.append(_STDOUT_MIB / (time.monotonic() - started))
    return compared("64 MB of stdout", "MB/s", raw, own, 0.6, more_is_better=True)


async def _upload(fork: Machine, bare: floor.Bare, directory: Path) -> Row:
    directory.mkdir()
    content = os.urandom(MIB) * _UPLOAD_MIB
    (directory / "file").write_bytes(content)
    raw, own = [], []
    for _ in range(_ROUNDS):
        started = time.monotonic()
        bare.send(f"{_DD_IN}\n".encode())
        bare.send(memoryview(content))
        bare.command(b"")
        raw.append(_UPLOAD_MIB / (time.monotonic() - started))
        started = time.monotonic()
        await fork.upload(directory, "/mnt/upload")
        own.append(_UPLOAD_MIB / (time.monotonic() - started))
        await fork.run(["rm", "-r", "/mnt/upload"], check=True)
    return compared("256 MB upload", "MB/s", raw, own, 0.6, more_is_better=True)
