"""Runs the trees of `syntax` in the double of a guest."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from firebrick.guest.double.disk import Node, Refusal
from firebrick.guest.double.task import Killed, Program, Task
from tests.scenarios.shell import syntax
from tests.scenarios.shell.programs import PROGRAMS
from tests.scenarios.shell.syntax import AndOr, Literal, Pipeline, Redirect, Simple, UnsupportedError, Variable, Word

UNSUPPORTED = 125
_MOST_TURNS = 10_000


def shell_programs(complaints: list[str]) -> dict[str, Program]:
    """`bash`, `sh` and the programs scripts use. What they do not know is written into `complaints`."""
    return {
        **{name: _loud(program, complaints) for name, program in PROGRAMS.items()},
        "bash": _loud(_bash, complaints),
        "sh": _loud(_sh, complaints),
    }


def _loud(program: Program, complaints: list[str]) -> Program:
    async def run(task: Task) -> int:
        try:
            return await program(task)
        except UnsupportedError as error:
            complaints.append(f"{' '.join(arg.decode() for arg in task.argv)}: {error}")
            await task.err(f"the test's shell does not know this: {error}\n".encode())
            return UNSUPPORTED

    return run


async def _bash(task: Task) -> int:
    return await _script(task, bash=True)


async def _sh(task: Task) -> int:
    return await _script(task, bash=False)


class _Leave(Exception):  # noqa: N818 - `exit`, not an error
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def _script(task: Task, *, bash: bool) -> int:
    """`[--noprofile] [--norc] [-e] [-o pipefail] FILE`, or `-c SCRIPT`."""
    words = [word.decode() for word in task.argv[1:]]
    options = _Options(bash=bash)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-c":
            break
        if not (bash and word in {"--noprofile", "--norc"}):
            options.change(word, words)
    else:
        if not words:
            raise UnsupportedError("a shell that reads its input")
        node = task.disk.file(task.path(words[0].encode()))
        words[0] = node.content.read(0, node.content.size).decode()
    # A child's directory and variables are its own.
    shell = _Shell(replace(task, env=dict(task.env), traps=task.traps), options)
    try:
        await shell.run(syntax.parse(words[0]))
    except _Leave as leave:
        return leave.status
    return shell.status


@dataclass
class _Options:
    bash: bool
    stop: bool = False
    pipefail: bool = False

    def change(self, word: str, rest: list[str]) -> None:
        """`-e`, `+e`, `-o pipefail`, `+o pipefail`, `-eo pipefail`."""
        on = word[0] == "-"
        for letter in word[1:]:
            if letter == "e":
                self.stop = on
            elif letter == "o" and rest and rest[0] in {"pipefail", "errexit"}:
                name = rest.pop(0)
                if name == "pipefail" and not self.bash:
                    raise UnsupportedError("pipefail is bash's")
                setattr(self, {"pipefail": "pipefail", "errexit": "stop"}[name], on)
            else:
                raise UnsupportedError(f"the option {word}")


@dataclass
class _Shell:
    """`exported` are the names programs see. `quiet` is above 0 where a failure does not end the script."""

    task: Task
    options: _Options
    status: int = 0
    quiet: int = 0
    exported: set[str] = field(default_factory=set)
    pending: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variables = {name.decode(): value.decode(errors="replace") for name, value in self.task.env.items()}
        self.exported = set(self.variables)

    async def run(self, tree: tuple[AndOr, ...], task: Task | None = None) -> int:
        self.status = 0
        for item in tree:
            await self._and_or(item, task or self.task)
            while self.pending:
                await self.run(syntax.parse(self.pending.pop(0)), task)
        return self.status

    async def _and_or(self, item: AndOr, task: Task) -> None:
        for number, (operator, pipeline) in enumerate(item.parts):
            if operator and (self.status == 0) != (operator == "&&"):
                continue
            last = number == len(item.parts) - 1
            tested = not last or pipeline.negated
            self.quiet += tested
            try:
                await self._pipeline(pipeline, task)
            finally:
                self.quiet -= tested
            if self.status and not tested and not self.quiet and self.options.stop:
                raise _Leave(self.status)

    async def _pipeline(self, pipeline: Pipeline, task: Task) -> None:
        """One after the other: what a command writes is whole before the next one reads."""
        data: bytes | None = None
        statuses = []
        for number, command in enumerate(pipeline.commands):
            said: list[bytes] = []
            part = replace(task, read=_given(data)) if data is not None else task
            last = number == len(pipeline.commands) - 1
            if len(pipeline.commands) == 1:
                await self._command(command, part)
            else:
                await self._subshell(command, part if last else replace(part, out=_into(said)))
            data = b"".join(said)
            statuses.append(self.status)
        failed = [status for status in statuses if status]
        status = failed[-1] if self.options.pipefail and failed else statuses[-1]
        self.status = int(not status) if pipeline.negated else status

    async def _subshell(self, command: syntax.Command, task: Task) -> None:
        """What it changes is lost with it."""
        shell = replace(self, task=replace(task, traps=dict(task.traps)))
        shell.variables, shell.exported = dict(self.variables), set(self.exported)
        shell.options = replace(self.options)
        try:
            await shell._command(command, shell.task)
        except _Leave as leave:
            shell.status = leave.status
        self.status = shell.status

    async def _command(self, command: syntax.Command, task: Task) -> None:
        try:
            task = await self._redirected(task, command.redirects)
        except Refusal as refusal:
            await task.err(f"{refusal}\n".encode())
            self.status = 1 if self.options.bash else 2
            return
        match command:
            case Simple():
                await self._simple(command, task)
            case syntax.Group(body):
                await self.run(body, task)
            case syntax.If(branches, otherwise):
                for condition, body in branches:
                    if await self._test(condition, task):
                        await self.run(body, task)
                        return
                await self.run(otherwise, task)
            case syntax.For(name, words, body):
                for value in [value for word in words for value in await self._fields(word)]:
                    self.variables[name] = value
                    await self.run(body, task)
            case syntax.While(condition, body):
                await self._while(condition, body, task)

    async def _while(self, condition: tuple[AndOr, ...], body: tuple[AndOr, ...], task: Task) -> None:
        status = 0
        for _ in range(_MOST_TURNS):
            if not await self._test(condition, task):
                self.status = status
                return
            status = await self.run(body, task)
        raise UnsupportedError("a loop that does not end")

    async def _test(self, condition: tuple[AndOr, ...], task: Task) -> bool:
        self.quiet += 1
        try:
            return await self.run(condition, task) == 0
        finally:
            self.quiet -= 1

    async def _simple(self, command: Simple, task: Task) -> None:
        words = [value for word in command.words for value in await self._fields(word)]
        self.status = 0 if not words else self.status
        values = {name: await self._text(word) for name, word in command.assignments}
        if not words:
            self.variables.update(values)
            return
        if words[0] in _BUILT_IN:
            if values:
                raise UnsupportedError(f"variables before {words[0]}")
            self.status = _BUILT_IN[words[0]](self, words[1:])
            return
        env = {name: self.variables[name] for name in self.exported if name in self.variables} | values
        self.status = await self._program(words, env, task)

    async def _program(self, words: list[str], env: dict[str, str], task: Task) -> int:
        program = task.programs.get(words[0].rpartition("/")[2]) if self._found(words[0], env) else None
        if program is None:
            known = {"bash": f"{words[0]}: command not found", "sh": f"{words[0]}: not found"}
            await task.err(f"{known['bash' if self.options.bash else 'sh']}\n".encode())
            return 127
        child = replace(
            task,
            argv=tuple(word.encode() for word in words),
            env={name.encode(): value.encode() for name, value in env.items()},
            cwd=self.task.cwd,
            traps={},
        )
        try:
            return await program(child)
        except Refusal as refusal:
            await task.err(f"{words[0]}: {refusal}\n".encode())
            return 1

    @staticmethod
    def _found(name: str, env: dict[str, str]) -> bool:
        """The double's programs are in /bin; PATH may leave that out."""
        if "/" in name:
            return name.startswith(("/bin/", "/usr/bin/"))
        return any(place in {"/bin", "/usr/bin"} for place in env.get("PATH", "/bin").split(":"))

    async def _redirected(self, task: Task, redirects: tuple[Redirect, ...]) -> Task:
        for redirect in redirects:
            text = await self._text(redirect.target)
            if redirect.operator == ">&":
                write = {"1": task.out, "2": task.err}.get(text)
                if write is None:
                    raise UnsupportedError(f">&{text}")
                task = replace(task, **{_STREAM[redirect.descriptor]: write})
            elif redirect.operator == "<<":
                task = replace(task, read=_given(text.encode()))
            elif redirect.operator == "<":
                node = task.disk.file(self.path(text))
                task = replace(task, read=_given(node.content.read(0, node.content.size)))
            else:
                write = self._opened(text, append=redirect.operator == ">>")
                task = replace(task, **{_STREAM[redirect.descriptor]: write})
        return task

    def _opened(self, name: str, *, append: bool) -> Callable:
        if name == "/dev/null":
            return _into([])
        if not name:
            raise Refusal("not_found", "cannot open an empty name")
        if name.startswith("/dev/"):
            raise UnsupportedError(name)
        node = self.task.disk.open(self.path(name), parents=False, truncate=not append)
        return _writer(node)

    def path(self, name: str) -> bytes:
        return self.task.path(name.encode())

    # --- words ---

    async def _text(self, word: Word) -> str:
        """A word as one text: of an assignment, a redirection."""
        return "".join([await self._piece(piece) for piece in word])

    async def _fields(self, word: Word) -> list[str]:
        """A word as the arguments it becomes: expansions that are not quoted are split at white space."""
        fields: list[str] = []
        begun = False
        for piece in word:
            text = await self._piece(piece)
            bare = isinstance(piece, Literal) and not piece.quoted and text not in {"[", "?"}
            if bare and any(c in text for c in "*?["):
                raise UnsupportedError(f"patterns of file names: {text}")
            if piece.quoted or isinstance(piece, Literal):
                fields = [*fields[:-1], fields[-1] + text] if begun and fields else [*fields, text]
                begun = True
                continue
            if any(c in text for c in "*?["):
                raise UnsupportedError(f"patterns of file names, out of an expansion: {text}")
            parts = text.split()
            if parts and begun and fields and not text[0].isspace():
                fields[-1] += parts.pop(0)
            fields += parts
            begun = bool(text) and not text[-1].isspace() if text else begun
        return fields

    async def _piece(self, piece: syntax.Piece) -> str:
        match piece:
            case Literal(text):
                return text
            case Variable():
                return self._variable(piece)
            case syntax.Substitution(script):
                return await self._substituted(script)

    def _variable(self, piece: Variable) -> str:
        known = {"?": str(self.status), "$": str(self.task.pid)}
        value = known.get(piece.name, self.variables.get(piece.name))
        if "$" in piece.word or "'" in piece.word or '"' in piece.word:
            raise UnsupportedError(f"an expansion in ${{{piece.name}}}")
        match piece.operator:
            case ":-":
                return value or piece.word
            case "-":
                return piece.word if value is None else value
            case ":+":
                return piece.word if value else ""
            case "":
                return value or ""
        raise UnsupportedError(f"${{{piece.name}{piece.operator}}}")

    async def _substituted(self, script: tuple[AndOr, ...]) -> str:
        said: list[bytes] = []
        group = syntax.Group(script)
        task = replace(self.task, out=_into(said))
        stop, self.options.stop = self.options.stop, self.options.stop and not self.options.bash
        try:
            await self._subshell(group, task)
        finally:
            self.options.stop = stop
        return b"".join(said).decode().rstrip("\n")


_STREAM = {1: "out", 2: "err"}


def _into(said: list[bytes]) -> Callable:
    async def write(data: bytes) -> None:
        said.append(data)

    return write


def _given(data: bytes) -> Callable:
    rest = [data, b""]

    async def read() -> bytes:
        return rest.pop(0) if len(rest) > 1 else b""

    return read


def _writer(node: Node) -> Callable:
    async def write(data: bytes) -> None:
        node.content.write(node.content.size, data)

    return write


# --- built in ---


def _exit(shell: _Shell, words: list[str]) -> int:
    raise _Leave(int(words[0]) & 0xFF if words else shell.status)


def _cd(shell: _Shell, words: list[str]) -> int:
    path = shell.path(words[0] if words else shell.variables.get("HOME", "/"))
    shell.task.disk.directory(path)
    shell.task.cwd = path
    return 0


def _export(shell: _Shell, words: list[str]) -> int:
    for word in words:
        name, equals, value = word.partition("=")
        shell.exported.add(name)
        if equals:
            shell.variables[name] = value
    return 0


def _unset(shell: _Shell, words: list[str]) -> int:
    for word in words:
        shell.variables.pop(word, None)
    return 0


def _set(shell: _Shell, words: list[str]) -> int:
    while words:
        word = words.pop(0)
        if word[:1] not in {"-", "+"}:
            raise UnsupportedError("set with arguments")
        shell.options.change(word, words)
    return 0


def _kill(shell: _Shell, words: list[str]) -> int:
    """Only itself: `kill -KILL $$`."""
    if len(words) != 2 or words[1] != str(shell.task.pid):
        raise UnsupportedError("kill of others")
    raise Killed(_number(words[0].lstrip("-")))


def _trap(shell: _Shell, words: list[str]) -> int:
    """`trap ACTION SIGNAL`: run between two commands, as there, or nothing."""
    action, *names = words
    for name in names:
        if name == "EXIT":
            raise UnsupportedError("trap EXIT")
        shell.task.trap(_number(name), (lambda: shell.pending.append(action)) if action else None)
    return 0


def _number(name: str) -> int:
    return int(name) if name.isdigit() else int(signal.Signals[f"SIG{name.removeprefix('SIG')}"])


_BUILT_IN: dict[str, Callable[[_Shell, list[str]], int]] = {
    ":": lambda *_: 0,
    "cd": _cd,
    "exit": _exit,
    "export": _export,
    "kill": _kill,
    "set": _set,
    "trap": _trap,
    "unset": _unset,
}
