"""The programs every double has."""

from __future__ import annotations

import asyncio

from firebrick.guest.double.disk import Node, Refusal
from firebrick.guest.double.shell import sh
from firebrick.guest.double.task import Program, Task


async def true(_: Task) -> int:
    return 0


async def false(_: Task) -> int:
    return 1


async def echo(task: Task) -> int:
    words, end = list(task.argv[1:]), b"\n"
    if words[:1] == [b"-n"]:
        words, end = words[1:], b""
    await task.out(b" ".join(words) + end)
    return 0


async def cat(task: Task) -> int:
    status = 0
    for name in task.argv[1:] or (b"-",):
        if name == b"-":
            while piece := await task.read():
                await task.out(piece)
            continue
        try:
            node = task.disk.file(task.path(name))
        except Refusal as refusal:
            await task.err(f"cat: {refusal}\n".encode())
            status = 1
            continue
        await _copy(task, node)
    return status


async def _copy(task: Task, node: Node) -> None:
    at = 0
    while piece := node.content.read(at, 1 << 16):
        await task.out(piece)
        at += len(piece)


async def sleep(task: Task) -> int:
    await asyncio.sleep(float(task.argv[1]))
    return 0


async def env(task: Task) -> int:
    for name, value in task.env.items():
        await task.out(name + b"=" + value + b"\n")
    return 0


async def pwd(task: Task) -> int:
    await task.out(task.cwd + b"\n")
    return 0


async def whoami(task: Task) -> int:
    await task.out(task.user.encode() + b"\n")
    return 0


async def hostname(task: Task) -> int:
    await task.out(task.disk.find(b"/etc/hostname").content.read(0, 256))
    return 0


async def yes(task: Task) -> int:
    """Floods its output, for ever."""
    block = b"y\n" * 4096
    while True:
        await task.out(block)
        await asyncio.sleep(0)


PROGRAMS: dict[str, Program] = {
    "cat": cat,
    "echo": echo,
    "env": env,
    "false": false,
    "hostname": hostname,
    "pwd": pwd,
    "sh": sh,
    "sleep": sleep,
    "true": true,
    "whoami": whoami,
    "yes": yes,
}
