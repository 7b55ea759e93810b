"""What is to be done for a stage, and how the image that comes of it is run: known before anything is run, once it is known what it begins from."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import MOST_VARIABLES, Dockerfile, Origin, arguments_of
from firebrick.dockerfile.reader import Heredoc, Instruction, is_heredoc
from firebrick.dockerfile.words import Expander, split

_SHELL: Final = ("/bin/sh", "-c")
_MOST_ENVIRONMENT: Final = 256 << 10
_LONGEST_PATH: Final = 4000
_OCTAL: Final = re.compile(r"[0-7]{3,4}")
_REMOTE: Final = re.compile(r"(?:https?|ftp|ssh|git)://.*|git@.*", re.IGNORECASE | re.DOTALL)
_NAME: Final = re.compile(r"[^\s=\0]{1,256}")
_OF_CACHES: Final = frozenset({"id", "sharing", "size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How an image is run. None is what nobody has said."""

    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    directory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command. `env` is what it has besides what every process of a machine has; `user` may be empty: root. `passing` are directories it has that
    are no part of what comes of it."""

    line: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    user: str
    directory: str
    passing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Files. `sources` are paths of the context, or, with an `origin`, of a stage or image; `texts` are files that stand in the Dockerfile, by name.
    `target` is absolute, and ends in `/` where it has to be a directory; `owner` is `user[:group]` or empty; `unpacks`: archives are taken apart."""

    line: int
    sources: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]
    origin: Origin | None
    target: str
    owner: str
    mode: int | None
    unpacks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    line: int
    path: str


Operation = Run | Copy | MakeDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`shown` says of each operation how it stands in the Dockerfile."""

    operations: tuple[Operation, ...]
    shown: tuple[str, ...]
    config: Config


def work_of(file: Dockerfile, number: int, base: Config) -> Work:
    """Of the stage `number`, which begins from an image that is run as `base` says. Raises DockerfileError."""
    compiler = Compiler(file, number, base)
    for instruction in file.stages[number].instructions:
        compiler.take(instruction)
    return compiler.work


def copied_from(file: Dockerfile, number: int) -> set[Origin]:
    """What the stage takes files of. Names of stages are written out, never variables."""
    found = set()
    for instruction in file.stages[number].instructions:
        if instruction.keyword == "COPY":
            found |= {file.origin(value, before=number) for name, value in instruction.flags if name == "from"}
    return found


def needed_stages(file: Dockerfile) -> list[int]:
    """The last one and all it begins from and copies of, in their order."""
    needed, todo = set[int](), [len(file.stages) - 1]
    while todo:
        number = todo.pop()
        if number not in needed:
            needed.add(number)
            origins = {file.stages[number].base, *copied_from(file, number)}
            todo += [origin for origin in origins if isinstance(origin, int)]
    return sorted(needed)


class Compiler:
    """Takes the instructions of one stage in their order; others may follow one that raises DockerfileError."""

    def __init__(self, file: Dockerfile, number: int, base: Config) -> None:
        self._file = file
        self._number = number
        self._escape = file.escape
        self._env = dict(base.env)
        self._arguments: dict[str, str] = {}
        self._entrypoint, self._command = base.entrypoint, base.command
        self._says_command = False
        self._user, self._directory = base.user, base.directory or "/"
        self._shell: tuple[str, ...] = _SHELL
        self._operations: list[Operation] = []
        self._shown: list[str] = []

    @property
    def work(self) -> Work:
        config = Config(
            entrypoint=self._entrypoint,
            command=self._command,
            env=self._env,
            user=self._user,
            directory=self._directory,
        )
        return Work(operations=tuple(self._operations), shown=tuple(self._shown), config=config)

    def take(self, instruction: Instruction) -> None:
        act = _ACTS.get(instruction.keyword)
        if act is None:
            raise DockerfileError(instruction.line, f"there is no instruction {instruction.keyword[:40]}")
        if not instruction.text:
            raise DockerfileError(instruction.line, f"{instruction.keyword} says nothing")
        act(self, instruction)

    def nothing(self, instruction: Instruction) -> None:
        """What an image says to those who run it otherwise."""

    # --- variables ---

    def _expander(self, instruction: Instruction) -> Expander:
        return self._file.expander({**self._arguments, **self._env}, instruction.line)

    def env(self, instruction: Instruction) -> None:
        expander = self._expander(instruction)
        words = split(instruction.text, self._escape)
        if "=" not in words[0]:  # the old form: one name, and all the rest is its value
            value = instruction.text[len(words[0]) :].strip()
            pairs = [(words[0], value)] if value else []
        else:
            pairs = [(name, value) for name, equals, value in (word.partition("=") for word in words) if equals]
            if len(pairs) < len(words):
                pairs = []
        if not pairs:
            raise DockerfileError(
                instruction.line, "ENV needs names with values", hint="As `ENV NAME=value OTHER=value`."
            )
        fresh = {}
        for name, value in pairs:
            if not _NAME.fullmatch(name := expander.expand(name)):
                raise DockerfileError(instruction.line, f"{name[:60]!r} is no name of a variable")
            fresh[name] = expander.expand(value)
        self._env.update(fresh)
        self._check_size(instruction)

    def arg(self, instruction: Instruction) -> None:
        known = {**self._arguments, **self._env}
        outside = {**self._file.predefined, **self._file.arguments}
        for name, default in arguments_of(self._file, instruction, known):
            value = outside.get(name) if default is None else default
            if value is not None:
                self._arguments[name] = value
        self._check_size(instruction)

    def _check_size(self, instruction: Instruction) -> None:
        both = (self._env, self._arguments)
        if sum(map(len, both)) > MOST_VARIABLES:
            raise DockerfileError(instruction.line, f"there are more than {MOST_VARIABLES} variables")
        if sum(len(name) + len(value) for each in both for name, value in each.items()) > _MOST_ENVIRONMENT:
            raise DockerfileError(
                instruction.line, f"all variables have more than {_MOST_ENVIRONMENT >> 10} KiB together"
            )

    # --- how it is run ---

    def _argv(self, instruction: Instruction) -> tuple[str, ...]:
        listed = instruction.listed
        return listed if listed is not None else (*self._shell, instruction.text)

    def command(self, instruction: Instruction) -> None:
        self._command, self._says_command = self._argv(instruction) or None, True

    def entrypoint(self, instruction: Instruction) -> None:
        self._entrypoint = self._argv(instruction) or None
        if not self._says_command:
            self._command = None  # that of the image it begins from was meant for another program

    def shell(self, instruction: Instruction) -> None:
        if not instruction.listed:
            raise DockerfileError(instruction.line, "SHELL needs a list", hint='As `SHELL ["/bin/bash", "-c"]`.')
        self._shell = instruction.listed

    def user(self, instruction: Instruction) -> None:
        self._user = self._expander(instruction).expand(instruction.text)

    def workdir(self, instruction: Instruction) -> None:
        path = self._expander(instruction).expand(instruction.text)
        self._directory = _absolute(instruction, path, self._directory)
        self._add(instruction, MakeDirectory(line=instruction.line, path=self._directory))

    # --- what is done ---

    def _add(self, instruction: Instruction, operation: Operation) -> None:
        self._operations.append(operation)
        flags = "".join(f" --{name}={value}" if value else f" --{name}" for name, value in instruction.flags)
        self._shown.append(f"{instruction.keyword}{flags} {instruction.text}"[:500])

    def run(self, instruction: Instruction) -> None:
        passing = []
        for name, value in instruction.flags:
            if name == "mount":
                passing.append(self._passing(instruction, value))
            elif (name, value) not in (("network", "default"), ("security", "sandbox")):
                raise DockerfileError(instruction.line, f"RUN --{name} is not supported")
        operation = Run(
            line=instruction.line,
            argv=self._script(instruction),
            env={**self._arguments, **self._env},
            user=self._user,
            directory=self._directory,
            passing=tuple(passing),
        )
        self._add(instruction, operation)

    def _passing(self, instruction: Instruction, text: str) -> str:
        """The directory of a mount that may as well be empty."""
        fields = dict(field.partition("=")[::2] for field in text.split(","))
        kind = fields.pop("type", "bind")
        target = next((fields.pop(name) for name in ("target", "dst", "destination") if name in fields), "")
        if kind not in ("cache", "tmpfs") or not target or fields.keys() - _OF_CACHES:
            raise DockerfileError(
                instruction.line,
                f"RUN --mount={text[:100]} is not supported",
                hint="Of mounts there are type=cache and type=tmpfs with a target.",
            )
        path = _absolute(instruction, self._expander(instruction).expand(target), self._directory)
        if path == "/":
            raise DockerfileError(instruction.line, "a mount needs a target below /")
        return path

    def _script(self, instruction: Instruction) -> tuple[str, ...]:
        """Its words. A here-document that is all of it is the script; others are the shell's matter."""
        if not instruction.heredocs:
            argv = self._argv(instruction)
            if not argv:
                raise DockerfileError(instruction.line, "RUN says nothing")
            return argv
        first = instruction.heredocs[0]
        if len(instruction.heredocs) == 1 and len(instruction.text.split()) == 1:
            if first.content.startswith("#!"):
                raise DockerfileError(
                    instruction.line,
                    "a script with a line of its own for its program is not supported",
                    hint="Name the program before the here-document, as `RUN python3 <<END`.",
                )
            return (*self._shell, first.content)
        return (*self._shell, "\n".join([instruction.text, *(each.source for each in instruction.heredocs)]) + "\n")

    def copy(self, instruction: Instruction) -> None:
        self._place(instruction, unpacks=False)

    def add(self, instruction: Instruction) -> None:
        self._place(instruction, unpacks=True)

    def _place(self, instruction: Instruction, *, unpacks: bool) -> None:
        expander = self._expander(instruction)
        flags = self._flags(instruction, expander, unpacks=unpacks)
        words = instruction.listed or tuple(split(instruction.text, self._escape))
        if len(words) < 2:
            raise DockerfileError(instruction.line, f"{instruction.keyword} needs a source and a target")
        target = expander.expand(words[-1])
        if len(words) > 2 and not target.endswith("/"):
            raise DockerfileError(instruction.line, "the target of several sources must end in /")
        texts, paths = _told_apart(instruction, words[:-1])
        operation = Copy(
            line=instruction.line,
            sources=tuple(_source(instruction, expander.expand(path), flags.get("from")) for path in paths),
            texts=tuple((each.name, _content(each, expander)) for each in texts),
            origin=self._file.origin(flags["from"], before=self._number) if "from" in flags else None,
            target=_absolute(instruction, target, self._directory, slash=True),
            owner=flags.get("chown", ""),
            mode=_mode(instruction, flags["chmod"]) if "chmod" in flags else None,
            unpacks=unpacks,
        )
        self._add(instruction, operation)

    def _flags(self, instruction: Instruction, expander: Expander, *, unpacks: bool) -> dict[str, str]:
        known = {"chown", "chmod", "link"} | (set() if unpacks else {"from"})
        for name, value in instruction.flags:
            if name not in known or (name != "link" and not value):
                raise DockerfileError(instruction.line, f"{instruction.keyword} --{name} is not supported")
        return {name: value if name == "from" else expander.expand(value) for name, value in instruction.flags}


def _told_apart(instruction: Instruction, words: Sequence[str]) -> tuple[list[Heredoc], list[str]]:
    """Texts that stand in the Dockerfile, and paths. Here-documents are in the order of their words."""
    left = list(instruction.heredocs)
    texts, paths = [], []
    for word in words:
        if left and is_heredoc(word):
            texts.append(left.pop(0))
        else:
            paths.append(word)
    return texts, paths


def _content(heredoc: Heredoc, expander: Expander) -> str:
    return expander.expand(heredoc.content, quotes=False) if heredoc.expands else heredoc.content


def _source(instruction: Instruction, path: str, origin: str | None) -> str:
    """A path of the context, plain and relative; of a stage or image, absolute."""
    if len(path) > _LONGEST_PATH:
        raise DockerfileError(instruction.line, f"{path[:60]!r} and more is no path")
    if _REMOTE.fullmatch(path):
        raise DockerfileError(
            instruction.line,
            f"{instruction.keyword} from an address is not supported",
            hint="Fetch it with RUN in a job that has a network, or keep the file beside the Dockerfile.",
        )
    if origin is not None:
        return posixpath.normpath("/" + path.lstrip("/"))
    plain = posixpath.normpath(path.lstrip("/") or ".")
    if plain == ".." or plain.startswith("../"):
        raise DockerfileError(instruction.line, f"{path[:100]!r} is outside of the directory of the Dockerfile")
    return plain


def _absolute(instruction: Instruction, path: str, directory: str, *, slash: bool = False) -> str:
    if not path or len(path) > _LONGEST_PATH:
        raise DockerfileError(instruction.line, f"{path[:60]!r} is no path")
    whole = posixpath.normpath(posixpath.join(directory, path))
    whole = "/" + whole.lstrip("/")
    directory_wanted = path.endswith(("/", "/.")) or path == "."
    return f"{whole.rstrip('/')}/" if slash and directory_wanted else whole


def _mode(instruction: Instruction, text: str) -> int:
    if not _OCTAL.fullmatch(text):
        raise DockerfileError(instruction.line, f"the mode {text[:40]!r} is not supported", hint="Write it as `755`.")
    return int(text, 8)


_ACTS: Final[Mapping[str, Callable[[Compiler, Instruction], None]]] = {
    "ADD": Compiler.add,
    "ARG": Compiler.arg,
    "CMD": Compiler.command,
    "COPY": Compiler.copy,
    "ENTRYPOINT": Compiler.entrypoint,
    "ENV": Compiler.env,
    "EXPOSE": Compiler.nothing,
    "HEALTHCHECK": Compiler.nothing,
    "LABEL": Compiler.nothing,
    "MAINTAINER": Compiler.nothing,
    "ONBUILD": Compiler.nothing,
    "RUN": Compiler.run,
    "SHELL": Compiler.shell,
    "STOPSIGNAL": Compiler.nothing,
    "USER": Compiler.user,
    "VOLUME": Compiler.nothing,
    "WORKDIR": Compiler.workdir,
}
