"""The tree under test, as it goes into the lab: what git knows of it, compiled here, where the processor is real."""

from __future__ import annotations

import compileall
import hashlib
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from firebrick.process import run
from lab.packages import PYTHON

# What tests need of the tree.
_PARTS: Final = ("src", "tests", "bench", "lab", "docs", "examples", "pyproject.toml")
# Built, and so not known to git.
_PROGRAMS: Final = (
    "src/firebrick/bin/firebrick-tether",
    "src/firebrick/guest/bin/firebrick-agent",
    "src/firebrick/machine/bin/firebrick-pager",
)


async def staged(project: Path, cache: Path) -> Path:
    """A copy of the tree `project` below `cache`, with byte code. It is brought up to date, not made anew."""
    target = cache / f"project-{hashlib.sha256(str(project).encode()).hexdigest()[:12]}"
    wanted = {file for file in [*await _tracked(project), *map(Path, _PROGRAMS)] if (project / file).is_file()}
    _update(project, target, wanted)
    if sys.version_info[:2] == PYTHON:
        compileall.compile_dir(target, quiet=2)
    return target


async def _tracked(project: Path) -> list[Path]:
    argv: list[str | Path] = [
        "git",
        "-C",
        project,
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *_PARTS,
    ]
    return [Path(name) for name in (await run(argv, timeout=60)).text.split("\0") if name]


def _update(project: Path, target: Path, wanted: Iterable[Path]) -> None:
    for file in wanted:
        source, copy = project / file, target / file
        if not copy.exists() or _differs(source, copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    kept = {target / file for file in wanted}
    for found in [path for path in target.rglob("*") if path.is_file() and "__pycache__" not in path.parts]:
        if found not in kept:
            found.unlink()


def _differs(source: Path, copy: Path) -> bool:
    ours, theirs = source.stat(), copy.stat()
    return (ours.st_size, ours.st_mtime_ns) != (theirs.st_size, theirs.st_mtime_ns)
