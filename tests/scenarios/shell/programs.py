"""The programs scripts of the scenarios use, as far as they use them."""

from __future__ import annotations

import asyncio
import base64
import re

from firebrick.guest.double.disk import Refusal
from firebrick.guest.double.task import Program, Task
from tests.scenarios.shell.syntax import UnsupportedError


def _words(task: Task) -> list[str]:
    return [word.decode() for word in task.argv[1:]]


async def _echo(task: Task) -> int:
    words = _words(task)
    end = "\n"
    if words[:1] == ["-n"]:
        words, end = words[1:], ""
    text = " ".join(words)
    if "\\" in text or (words and re.fullmatch("-[neE]+", words[0])):
        raise UnsupportedError("what shells echo differently: use printf")
    await task.out(f"{text}{end}".encode())
    return 0


_ESCAPES = re.compile(r"\\(?:([0-7]{1,3})|(.))", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


async def _printf(task: Task) -> int:
    form, *values = _words(task)
    out = b""
    while True:
        before = len(values)
        out += _formatted(form, values)
        if not values or len(values) == before:
            break
    await task.out(out)
    return 0


def _formatted(form: str, values: list[str]) -> bytes:
    out = b""
    for part in re.split(r"(%.|\\(?:[0-7]{1,3}|.))", form, flags=re.DOTALL):
        if part == "%%":
            out += b"%"
        elif part in {"%s", "%d"}:
            out += (values.pop(0) if values else "").encode()
        elif part.startswith("%"):
            raise UnsupportedError(f"printf {part}")
        elif match := _ESCAPES.fullmatch(part):
            out += bytes([int(match[1], 8)]) if match[1] else _escape(match[2])
        else:
            out += part.encode()
    return out


def _escape(letter: str) -> bytes:
    if letter not in _NAMED:
        raise UnsupportedError(f"printf \\{letter}")
    return _NAMED[letter].encode()


async def _true(_: Task) -> int:
    return 0


async def _false(_: Task) -> int:
    return 1


async def _cat(task: Task) -> int:
    status = 0
    for name in _words(task) or ["-"]:
        if name == "-":
            while piece := await task.read():
                await task.out(piece)
            continue
        try:
            node = task.disk.file(task.path(name.encode()))
        except Refusal:
            await task.err(f"cat: {name}: No such file or directory\n".encode())
            status = 1
        else:
            await task.out(node.content.read(0, node.content.size))
    return status


_COMPARE = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "-eq": lambda a, b: int(a) == int(b),
    "-ne": lambda a, b: int(a) != int(b),
    "-gt": lambda a, b: int(a) > int(b),
    "-lt": lambda a, b: int(a) < int(b),
}


async def _test(task: Task) -> int:
    words = _words(task)
    if task.argv[0] == b"[" and words.pop() != "]":
        raise UnsupportedError("[ without ]")
    negated = words[:1] == ["!"]
    return int(_holds(task, words[negated:]) == negated)


def _holds(task: Task, words: list[str]) -> bool:
    match words:
        case []:
            return False
        case [text]:
            return bool(text)
        case ["-n", text]:
            return bool(text)
        case ["-z", text]:
            return not text
        case ["-e" | "-f" | "-d" as kind, name]:
            return _exists(task, name, {"-f": "file", "-d": "directory"}.get(kind))
        case [left, operator, right] if operator in _COMPARE:
            return _COMPARE[operator](left, right)
    raise UnsupportedError(f"test {' '.join(words)}")


def _exists(task: Task, name: str, kind: str | None) -> bool:
    try:
        node = task.disk.find(task.path(name.encode()))
    except Refusal:
        return False
    return kind is None or node.kind == kind


async def _sleep(task: Task) -> int:
    await asyncio.sleep(float(task.argv[1]))
    return 0


async def _pwd(task: Task) -> int:
    await task.out(task.cwd + b"\n")
    return 0


async def _printenv(task: Task) -> int:
    for name in _words(task):
        if name.encode() not in task.env:
            return 1
        await task.out(task.env[name.encode()] + b"\n")
    return 0


async def _mkdir(task: Task) -> int:
    for name in _words(task):
        if name != "-p":
            task.disk.mkdir(task.path(name.encode()), 0o755, parents="-p" in _words(task))
    return 0


async def _rm(task: Task) -> int:
    options = [word for word in _words(task) if word.startswith("-")]
    for name in _words(task):
        if name not in options:
            recursive = any("r" in option for option in options)
            task.disk.remove(task.path(name.encode()), recursive=recursive, missing_ok=any("f" in o for o in options))
    return 0


async def _seq(task: Task) -> int:
    first, last = map(int, _words(task))
    await task.out("".join(f"{number}\n" for number in range(first, last + 1)).encode())
    return 0


async def _base64(task: Task) -> int:
    if _words(task) not in ([], ["-w0"]):
        raise UnsupportedError("options of base64")
    data = b""
    while piece := await task.read():
        data += piece
    encoded = base64.b64encode(data).decode()
    if _words(task):
        await task.out(encoded.encode())
        return 0
    lines = [encoded[at : at + 76] for at in range(0, len(encoded), 76)]
    await task.out("".join(f"{line}\n" for line in lines).encode())
    return 0


PROGRAMS: dict[str, Program] = {
    "[": _test,
    "base64": _base64,
    "cat": _cat,
    "echo": _echo,
    "false": _false,
    "mkdir": _mkdir,
    "printenv": _printenv,
    "printf": _printf,
    "pwd": _pwd,
    "rm": _rm,
    "seq": _seq,
    "sleep": _sleep,
    "test": _test,
    "true": _true,
}
