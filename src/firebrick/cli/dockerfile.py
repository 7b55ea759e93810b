"""The Dockerfiles of actions of a repository, for `firebrick workflow check`."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from firebrick.confined import open_beneath
from firebrick.dockerfile.check import check_dockerfile
from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import platform_of
from firebrick.dockerfile.reader import MAX_BYTES
from firebrick.workflow.problem import Position, Problem


def read_problems(root: Path, path: str) -> tuple[Problem, ...]:
    """What is wrong with the Dockerfile at `path`, relative to `root`, built for machines of this host. Raises OSError for one that is not there, or is
    outside of `root`."""
    with open_beneath(root, path) as file:
        # One byte over the limit is enough to be refused for it.
        content = file.read(MAX_BYTES + 1)
    found = check_dockerfile(content, platform=platform_of(platform.machine()))
    lines = content.decode(errors="replace").split("\n") if found else []
    return tuple(_problems(path, found, lines))


def _problems(path: str, errors: Iterable[DockerfileError], lines: list[str]) -> Iterable[Problem]:
    """Of an instruction the line is known, and it begins where that does; 0 is the file as a whole."""
    for error in errors:
        line = max(1, error.line)
        source = lines[line - 1].removesuffix("\r") if error.line else ""
        column = len(source) - len(source.lstrip()) + 1
        message = f"{error}. {error.hint.removesuffix('.')}" if error.hint else str(error)
        yield Problem(path, Position(line, column), message, source=source)
