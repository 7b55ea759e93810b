"""Tools an administrator brings: a directory of this host, or a tar archive. Nothing in them is run, and nothing is written outside of the target."""

from __future__ import annotations

import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from firebrick.node.errors import ToolError
from firebrick.node.tool.digest import measure
from firebrick.node.tool.limits import MOST_FILES

_HINT: Final = (
    "Give the directory of the tool, or a tar archive of it, compressed or not; unpack any other archive first."
)


def bring(source: Path, target: Path, *, most_bytes: int) -> Path:
    """Copy or unpack `source` to the directory `target`, which is made, and return where in it the tool is. Blocking.

    Releases are archived with one directory around them: where that is all an archive has, the tool is in there. Raises ToolError."""
    try:
        if source.is_dir():
            measure(source.resolve(), most_bytes=most_bytes)
            shutil.copytree(source, target, symlinks=True, copy_function=_copy)
            return _filled(target, source)
        target.mkdir(mode=0o755)
        _unpack(source, target, most_bytes)
        return _filled(_within(target), source)
    except tarfile.ReadError as error:
        raise ToolError(f"cannot take the tool from {source}: it is no whole tar archive", hint=_HINT) from error
    except (OSError, shutil.Error, tarfile.TarError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise ToolError(f"cannot take the tool from {source}: {why}", hint=_HINT) from error


def _filled(tool: Path, source: Path) -> Path:
    if not any(tool.iterdir()):
        raise ToolError(f"cannot take the tool from {source}: there is nothing in it", hint=_HINT)
    return tool


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target, follow_symlinks=False)
    made = Path(target)
    if not made.is_symlink():
        made.chmod(stat.S_IMODE(made.stat().st_mode) & 0o777)


def _unpack(archive: Path, target: Path, most_bytes: int) -> None:
    """With the filter that keeps out links and paths that lead elsewhere, devices, and set-id bits."""
    with tarfile.open(archive) as opened:
        opened.extractall(target, members=_bounded(opened, archive, most_bytes), filter="data")


def _bounded(opened: tarfile.TarFile, archive: Path, most_bytes: int) -> Iterator[tarfile.TarInfo]:
    """The members, as long as they are not too many, nor too large."""
    size = 0
    for number, member in enumerate(opened):
        size += member.size
        if size > most_bytes or number >= MOST_FILES:
            raise ToolError(
                f"cannot take the tool from {archive}: it has more than {most_bytes >> 20} MiB, or {MOST_FILES} files",
                hint="`tool_mib` in the table [node.tools] of config.toml bounds one.",
            )
        yield member


def _within(target: Path) -> Path:
    entries = list(target.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        return entries[0]
    return target
