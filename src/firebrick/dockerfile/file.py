"""A Dockerfile as its stages: what each begins from, and which of them the last one needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.reader import Instruction, read_instructions
from firebrick.dockerfile.words import Budget, Expander, split

SCRATCH: Final = "scratch"
_STAGE: Final = re.compile(r"[a-z][a-z0-9._-]{0,127}")
_MOST_STAGES: Final = 50
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
MOST_VARIABLES: Final = 500

Origin = int | str
"""Where files or a root come from: the number of a stage, or the name of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`base` is what it begins from, which may be `scratch`. `line` is that of its FROM."""

    line: int
    name: str
    base: Origin
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """`arguments` are the ARGs before the first FROM, which a stage sees where it names them. `platform` is the machine's, as `linux/amd64`."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]
    escape: str
    platform: str
    budget: Budget = field(default_factory=Budget)

    def expander(self, variables: Mapping[str, str], line: int) -> Expander:
        return Expander(variables, self.escape, line, self.budget)

    @property
    def predefined(self) -> dict[str, str]:
        """The arguments nobody has to give a value, only to name."""
        system, _, architecture = self.platform.partition("/")
        return {
            f"{whose}{what}": value
            for whose in ("TARGET", "BUILD")
            for what, value in (("PLATFORM", self.platform), ("OS", system), ("ARCH", architecture), ("VARIANT", ""))
        }

    def origin(self, text: str, *, before: int) -> Origin:
        """What `--from=text` means in the stage `before`: an earlier stage by name or number, else an image."""
        if text.isdecimal() and len(text) < 4 and int(text) < before:
            return int(text)
        for number in reversed(range(before)):
            if self.stages[number].name == text.lower():
                return number
        return text


def platform_of(machine: str) -> str:
    """What machines like this host are called, of which `uname -m` says `machine`."""
    return f"linux/{_ARCHITECTURES.get(machine, machine.lower())}"


def read_dockerfile(content: bytes, *, platform: str) -> Dockerfile:
    """Raises DockerfileError."""
    instructions, escape = read_instructions(content)
    file = Dockerfile(stages=(), arguments={}, escape=escape, platform=platform)
    at = 0
    while at < len(instructions) and instructions[at].keyword == "ARG":
        file = replace(file, arguments={**file.arguments, **_argument(file, instructions[at])})
        if len(file.arguments) > MOST_VARIABLES:
            raise DockerfileError(instructions[at].line, f"there are more than {MOST_VARIABLES} variables")
        at += 1
    if at == len(instructions):
        raise DockerfileError(0, "it has no FROM")
    while at < len(instructions):
        end = next(
            (n for n in range(at + 1, len(instructions)) if instructions[n].keyword == "FROM"), len(instructions)
        )
        file = replace(file, stages=(*file.stages, _stage(file, instructions[at:end])))
        at = end
    return file


def arguments_of(
    file: Dockerfile, instruction: Instruction, variables: Mapping[str, str]
) -> list[tuple[str, str | None]]:
    """The names of an ARG, each with its default or None."""
    expander = file.expander(variables, instruction.line)
    found: list[tuple[str, str | None]] = []
    for word in split(instruction.text, file.escape):
        name, equals, default = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise DockerfileError(instruction.line, f"{name[:60]!r} is no name of an argument")
        found.append((name, expander.expand(default) if equals else None))
    if not found:
        raise DockerfileError(instruction.line, "ARG needs a name")
    return found


def _argument(file: Dockerfile, instruction: Instruction) -> dict[str, str]:
    known = {**file.predefined, **file.arguments}
    return {name: value or "" for name, value in arguments_of(file, instruction, known)}


def _stage(file: Dockerfile, instructions: Sequence[Instruction]) -> Stage:
    first = instructions[0]
    number = len(file.stages)
    if first.keyword != "FROM":
        raise DockerfileError(first.line, f"the first instruction besides ARG must be FROM, not {first.keyword[:40]}")
    if number == _MOST_STAGES:
        raise DockerfileError(first.line, f"it has more than {_MOST_STAGES} stages")
    expander = file.expander({**file.predefined, **file.arguments}, first.line)
    _check_platform(file, first, expander)
    words = split(first.text, file.escape)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError(
            first.line, "FROM needs an image", hint="As `FROM debian:12`, or `FROM debian:12 AS build`."
        )
    name = words[2].lower() if len(words) == 3 else ""
    if name and (not _STAGE.fullmatch(name) or name == SCRATCH):
        raise DockerfileError(first.line, f"{words[2][:60]!r} cannot name a stage")
    image = expander.expand(words[0])
    if not image:
        raise DockerfileError(first.line, f"FROM needs an image, and {words[0][:60]!r} is empty")
    base = next((n for n in reversed(range(number)) if file.stages[n].name == image.lower()), None)
    if base is not None and any(each.keyword == "ONBUILD" for each in file.stages[base].instructions):
        raise DockerfileError(first.line, "ONBUILD of the stage it begins from is not supported")
    return Stage(line=first.line, name=name, base=image if base is None else base, instructions=tuple(instructions[1:]))


def _check_platform(file: Dockerfile, instruction: Instruction, expander: Expander) -> None:
    for name, value in instruction.flags:
        if name != "platform":
            raise DockerfileError(instruction.line, f"FROM --{name} is not supported")
        if (wanted := expander.expand(value)) != file.platform:
            raise DockerfileError(
                instruction.line, f"cannot build for the platform {wanted[:60]!r}: machines here are {file.platform}"
            )
