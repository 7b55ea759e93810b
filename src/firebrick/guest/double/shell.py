"""A small part of sh, enough for the one-liners of tests and demonstrations.

It knows quotes, `;` and newlines, `&&` and `||`, `$NAME`, `${NAME}`, `$?` and `$$`, the redirections `>`, `>>`, `<`, `>&2` and `2>&1`, and of the
built-in commands `:`, `cd`, `exit`, `export`, `kill` and `trap '' SIGNAL`. Everything else is a program of the double.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

from firebrick.guest.double.disk import Node, Refusal
from firebrick.guest.double.task import Killed, Task

_TOKEN = re.compile(
    rb"""[ \t\r]*(?:(?P<newline>\n)|(?P<comment>\#[^\n]*)|(?P<operator>&&|\|\||;|2>&1|1?>&2|2>|>>|>|<|\||&)|(?P<word>(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\;&|<>])+))""",
    re.DOTALL,
)
_PART = re.compile(rb"""'(?P<raw>[^']*)'|"(?P<soft>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)|(?P<bare>[^'"\\]+)""", re.DOTALL)
_VARIABLE = re.compile(rb"\$(?:\{(?P<braced>\w+)\}|(?P<name>\w+|[?$]))")
_NOWHERE = b"/dev/null"
_SEPARATORS = (b";", b"\n", b"&&", b"||")


class _Leave(Exception):  # noqa: N818 - `exit`, not an error
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def sh(task: Task) -> int:
    """`sh -c SCRIPT`."""
    options = [a for a in task.argv[1:] if a.startswith(b"-") and a != b"-"]
    words = [a for a in task.argv[1:] if not a.startswith(b"-")]
    if not any(b"c" in option for option in options) or not words:
        await task.err(b"sh: the double's shell only takes -c\n")
        return 2
    try:
        return await _Shell(task, stop=any(b"e" in option for option in options)).run(words[0])
    except _Leave as leave:
        return leave.status


class _Shell:
    def __init__(self, task: Task, *, stop: bool) -> None:
        self._task = task
        self._stop = stop
        self._status = 0

    async def run(self, script: bytes) -> int:
        command: list[bytes] = []
        wanted, tested = True, False
        for token in [*_tokens(script), b";"]:
            if token not in _SEPARATORS:
                command.append(token)
                continue
            if command and wanted:
                self._status = await self._command(command)
                if self._stop and self._status and token not in (b"&&", b"||") and not tested:
                    return self._status
            command = []
            tested = token in (b"&&", b"||")
            wanted = not tested or (self._status == 0) == (token == b"&&")
        return self._status

    async def _command(self, tokens: list[bytes]) -> int:
        task, words = self._task, []
        pending = iter(tokens)
        for token in pending:
            if token in (b"|", b"&"):
                await task.err(b"sh: the double's shell has no pipes and no background\n")
                return 2
            if token in (b">", b">>", b"<", b"2>"):
                task = self._redirect(task, token, self._expand(next(pending, b"")))
            elif token == b"2>&1":
                task = replace(task, err=task.out)
            elif token in (b">&2", b"1>&2"):
                task = replace(task, out=task.err)
            else:
                words.append(self._expand(token))
        return await self._execute(task, words)

    async def _execute(self, task: Task, words: list[bytes]) -> int:
        variables = {}
        while words and re.match(rb"[A-Za-z_]\w*=", words[0]):
            variable, _, value = words.pop(0).partition(b"=")
            variables[variable] = value
        if not words:
            self._task.env.update(variables)
            return 0
        name = words[0].decode(errors="replace")
        if name in _BUILT_IN:
            return _BUILT_IN[name](self._task, words[1:], self._status)
        program = task.programs.get(name.rpartition("/")[2])
        if program is None:
            await task.err(f"sh: {name}: not found\n".encode())
            return 127
        try:
            return await program(replace(task, argv=tuple(words), env=task.env | variables))
        except Refusal as refusal:
            await task.err(f"{name}: {refusal}\n".encode())
            return 1

    def _redirect(self, task: Task, operator: bytes, name: bytes) -> Task:
        path = task.path(name)
        if operator == b"<":
            return replace(task, read=_no_input if name == _NOWHERE else _reader(task.disk.find(path)))
        write = (
            _nothing if name == _NOWHERE else _writer(task.disk.open(path, parents=False, truncate=operator != b">>"))
        )
        return replace(task, err=write) if operator == b"2>" else replace(task, out=write)

    def _expand(self, word: bytes) -> bytes:
        built = b""
        for part in _PART.finditer(word):
            if part["raw"] is not None:
                built += part["raw"]
            elif part["escaped"] is not None:
                built += part["escaped"]
            elif part["soft"] is not None:
                built += re.sub(rb'\\(["\\$`])', rb"\1", _VARIABLE.sub(self._variable, part["soft"]))
            else:
                built += _VARIABLE.sub(self._variable, part["bare"])
        return built

    def _variable(self, match: re.Match[bytes]) -> bytes:
        name = match["braced"] or match["name"]
        if name == b"?":
            return b"%d" % self._status
        return b"%d" % self._task.pid if name == b"$" else self._task.env.get(name, b"")


def _tokens(script: bytes) -> list[bytes]:
    found, at = [], 0
    script = script.rstrip()
    while at < len(script):
        match = _TOKEN.match(script, at)
        if match is None:
            raise Refusal("bad_request", f"sh: cannot understand the script at byte {at}")
        if not match["comment"]:
            found.append(match["newline"] or match["operator"] or match["word"])
        at = match.end()
    return found


async def _nothing(_: bytes) -> None:
    pass


async def _no_input() -> bytes:
    return b""


def _reader(node: Node) -> Callable[[], Awaitable[bytes]]:
    at = 0

    async def read() -> bytes:
        nonlocal at
        piece = node.content.read(at, 1 << 16)
        at += len(piece)
        return piece

    return read


def _writer(node: Node) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        node.content.write(node.content.size, data)

    return write


# --- built-in commands: of the shell's own task, its arguments and the last status ---


def _exit(_: Task, arguments: list[bytes], status: int) -> int:
    raise _Leave(int(arguments[0]) & 0xFF if arguments else status)


def _cd(task: Task, arguments: list[bytes], _: int) -> int:
    path = task.path(arguments[0] if arguments else task.env.get(b"HOME", b"/"))
    task.disk.directory(path)
    task.cwd = path
    return 0


def _export(task: Task, arguments: list[bytes], _: int) -> int:
    for name, _equals, value in (a.partition(b"=") for a in arguments):
        task.env[name] = value or task.env.get(name, b"")
    return 0


def _kill(task: Task, arguments: list[bytes], _: int) -> int:
    """Only itself: `kill -9 $$`."""
    if len(arguments) != 2 or arguments[1] != b"%d" % task.pid:
        return 1
    raise Killed(_number(arguments[0].lstrip(b"-")))


def _trap(task: Task, arguments: list[bytes], _: int) -> int:
    for name in arguments[1:]:
        task.trap(_number(name), None)
    return 0


def _number(name: bytes) -> int:
    text = name.decode(errors="replace")
    return int(text) if text.isdigit() else int(signal.Signals[f"SIG{text.removeprefix('SIG')}"])


_BUILT_IN: dict[str, Callable[[Task, list[bytes], int], int]] = {
    ":": lambda *_: 0,
    "cd": _cd,
    "exit": _exit,
    "export": _export,
    "kill": _kill,
    "trap": _trap,
}
