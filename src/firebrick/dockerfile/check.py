"""Everything that is wrong with a Dockerfile, as far as it is wrong whatever the images are that it begins from."""

from __future__ import annotations

from collections.abc import Iterator

from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import SCRATCH, Dockerfile, read_dockerfile
from firebrick.dockerfile.reader import Instruction
from firebrick.dockerfile.work import Compiler, Config, needed_stages

_SETS_VARIABLES = frozenset({"ARG", "ENV"})


def check_dockerfile(content: bytes, *, platform: str) -> tuple[DockerfileError, ...]:
    """Its mistakes in the order of its lines; where it cannot be read as stages, the first alone. Stages that the last one does not need are not built, and
    not looked at."""
    try:
        file = read_dockerfile(content, platform=platform)
    except DockerfileError as error:
        return (error,)
    return tuple(_mistakes(file))


def _mistakes(file: Dockerfile) -> Iterator[DockerfileError]:
    configs: dict[int, Config] = {}
    certain: dict[int, bool] = {}
    for number in needed_stages(file):
        base = file.stages[number].base
        config = configs[base] if isinstance(base, int) else Config()
        # An image has variables that nobody knows here.
        certain[number] = certain[base] if isinstance(base, int) else base == SCRATCH
        compiler = Compiler(file, number, config)
        for instruction in file.stages[number].instructions:
            try:
                compiler.take(instruction)
            except DockerfileError as error:
                if certain[number] or not _names_variables(instruction):
                    yield error
                # What it would have set is not known to what follows.
                certain[number] = certain[number] and instruction.keyword not in _SETS_VARIABLES
        configs[number] = compiler.work.config


def _names_variables(instruction: Instruction) -> bool:
    return "$" in instruction.text or any("$" in value for _, value in instruction.flags)
