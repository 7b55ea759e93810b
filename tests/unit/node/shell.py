"""A shell for the guest double: a few words, really carried out, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal

from firebrick.guest.double.disk import Refusal
from firebrick.guest.double.task import Task

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


async def shell(task: Task) -> int:
    """`-e SCRIPT`: the words below, `$NAME`, `>> FILE`, comments; an unknown word ends it with 127, as with `-e`."""
    script = task.disk.find(task.path(task.argv[-1]))
    for line in script.content.read(0, script.content.size).decode().splitlines():
        status = await _line(task, line.strip())
        if status is not None:
            return status
    return 0


async def _line(task: Task, line: str) -> int | None:
    line = _VARIABLE.sub(lambda match: task.env.get((match[1] or match[2]).encode(), b"").decode(), line)
    line, _, target = line.partition(" >> ")
    word, _, rest = line.partition(" ")
    rest = rest.strip("'\"")
    match word:
        case "" | "#" | "true":
            return None
        case "exit":
            return int(rest or 0)
        case "echo":
            await _say(task, rest, target)
        case "pwd":
            await _say(task, task.cwd.decode(), target)
        case "fill":
            count, size, name = rest.split()
            await _say(task, "\n".join(f"{name}{n}={'x' * int(size)}" for n in range(int(count))), target)
        case _ if word in _WORDS:
            await _WORDS[word](task, rest)
        case _:
            await task.err(f"{word}: command not found\n".encode())
            return 127
    return None


async def _remove(task: Task, path: str) -> None:
    """With all that is below it."""
    task.disk.remove(path.encode(), recursive=True, missing_ok=False)


async def _show(task: Task, name: str) -> None:
    """A variable of any name."""
    value = task.env.get(name.encode())
    await task.out(name.encode() + (b" is not set" if value is None else b"=" + value) + b"\n")


async def _printf(task: Task, text: str) -> None:
    await task.out(text.encode().decode("unicode_escape").encode("latin-1"))


async def _flood(task: Task, count: str) -> None:
    for _ in range(int(count)):
        await task.out(b"x" * 1000 + b"\n")


async def _outputs(task: Task, rest: str) -> None:
    """`COUNT SIZE`: so many outputs, each with a name of its own."""
    count, size = map(int, rest.split())
    for number in range(count):
        await task.out(b"::set-output name=o%d::%s\n" % (number, b"x" * size))


async def _again(task: Task, rest: str) -> None:
    """`COUNT SIZE`: one output, so many times."""
    count, size = map(int, rest.split())
    for _ in range(count):
        await task.out(b"::set-output name=o::%s\n" % (b"x" * size))


async def _ignore(task: Task, name: str) -> None:
    task.trap(signal.Signals[f"SIG{name}"], None)


async def _wait(task: Task, _: str) -> None:
    await asyncio.Event().wait()


async def _until(task: Task, path: str) -> None:
    """Wait for a file that another step makes."""
    while True:
        with contextlib.suppress(Refusal):
            task.disk.find(task.path(path.encode()))
            return
        await asyncio.sleep(0.01)


async def _call(task: Task, rest: str) -> None:
    """`HOST PORT TEXT`: what answers there to the text; the host is found as programs find it."""
    host, port, text = rest.split(" ", 2)
    lines = task.disk.file(b"/etc/hosts").content.read(0, 1 << 16).decode().splitlines()
    found = [line.split()[0] for line in lines if host in line.partition("#")[0].split()[1:]]
    try:
        end = task.dial(int(port), found[0] if found else host)
    except ConnectionRefusedError:
        await task.out(b"refused\n")
        return
    await end.write(text.encode())
    await end.end()
    while piece := await end.read(1 << 16):
        await task.out(piece)
    await task.out(b"\n")


async def _say(task: Task, text: str, target: str) -> None:
    if not target:
        await task.out(text.encode() + b"\n")
        return
    file = task.disk.open(task.path(target.encode()), parents=True, truncate=False)
    file.content.write(file.content.size, text.encode() + b"\n")


async def _until_interrupted(task: Task, text: str) -> None:
    """Say `text` once SIGINT has come, and go on."""
    came = asyncio.Event()
    task.trap(signal.SIGINT, came.set)
    await came.wait()
    await task.out(text.encode() + b"\n")


_WORDS = {
    "call": _call,
    "remove": _remove,
    "show": _show,
    "printf": _printf,
    "flood": _flood,
    "outputs": _outputs,
    "again": _again,
    "ignore": _ignore,
    "until": _until,
    "wait": _wait,
    "on-interrupt": _until_interrupted,
}
