"""The Dockerfile of an action and the files beside it, on this host: from the action's repository, or out of the workspace in the job's machine."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firebrick.confined import read_beneath
from firebrick.dockerfile.errors import DockerfileError
from firebrick.dockerfile.file import Dockerfile, read_dockerfile
from firebrick.dockerfile.pattern import IGNORE_BYTES, Ignored, PatternError
from firebrick.dockerfile.reader import MAX_BYTES
from firebrick.guest.client import TreeLimits
from firebrick.guest.tree import in_thread
from firebrick.node.action.use import DockerUse
from firebrick.node.dockerfile.context import Context, ContextError
from firebrick.node.errors import ActionError

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

_IGNORE: Final = ".dockerignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSource:
    """`called` is what people know the Dockerfile by."""

    called: str
    file: Dockerfile
    context: Context

    def fault(self, line: int, message: str, hint: str = "") -> ActionError:
        """The error about a line of it; 0 is all of it."""
        where = f"{self.called}:{line}" if line else self.called
        return ActionError(f"{where}: {message}", hint=hint)


async def find_source(bench: Bench, use: DockerUse, scratch: Path, *, platform: str) -> BuildSource:
    """Read it; `scratch` is a directory for what has to be brought out of the machine. Raises ActionError, AgentError, TreeError."""
    tree = bench.supplies.actions.repository_of(use.place)
    called = called_of(use)
    if tree is not None:
        root, folder = tree
        directory, name = await in_thread(_in_tree, root, posixpath.join(folder, use.runs.image), called)
    else:
        directory, name = await _from_workspace(bench, use, scratch / "context", called)
    return await in_thread(_read, directory, name, called, platform)


def called_of(use: DockerUse) -> str:
    """The action and the path of its Dockerfile in it. Where there is no `action.yml` the folder is called by its own name."""
    path = use.file.path
    folder = posixpath.dirname(path) if path.endswith((".yml", ".yaml")) else path
    return posixpath.normpath(posixpath.join(folder, use.runs.image))


def _in_tree(root: Path, path: str, called: str) -> tuple[Path, str]:
    base = root.resolve()
    plain = posixpath.normpath(path)
    try:
        directory = (base / posixpath.dirname(plain)).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ActionError(f"cannot find {called}: {error}") from error
    if plain.startswith(("../", "/")) or not directory.is_relative_to(base):
        raise ActionError(f"cannot use {called}: it is outside of the action's repository")
    return directory, posixpath.basename(plain)


async def _from_workspace(bench: Bench, use: DockerUse, target: Path, called: str) -> tuple[Path, str]:
    workspace = bench.paths.workspace
    path = posixpath.normpath(posixpath.join(use.place.path, use.runs.image))
    if not path.startswith(f"{workspace}/"):
        raise ActionError(f"cannot use {called}: it is not below the workspace")
    if not await bench.guest.files.exists(path):
        raise ActionError(f"cannot find {called}")
    limits = TreeLimits(bytes=bench.settings.source_limit_mib << 20)
    await bench.guest.download(posixpath.dirname(path), target, limits=limits)
    return target, posixpath.basename(path)


def _read(directory: Path, name: str, called: str, platform: str) -> BuildSource:
    try:
        content = read_beneath(directory, name, MAX_BYTES + 1)
    except OSError as error:
        raise ActionError(f"cannot read {called}: {error.strerror or error}") from error
    try:
        file = read_dockerfile(content, platform=platform)
    except DockerfileError as error:
        where = f"{called}:{error.line}" if error.line else called
        raise ActionError(f"{where}: {error}", hint=error.hint) from error
    try:
        return BuildSource(called=called, file=file, context=Context(directory, ignored=_ignored(directory, name)))
    except (ContextError, OSError) as error:
        raise ActionError(f"cannot read the files beside {called}: {error}") from error


def _ignored(directory: Path, name: str) -> Ignored | None:
    """What the ignore file says that is for this Dockerfile, else the one for all of the directory."""
    for each in (f"{name}{_IGNORE}", _IGNORE):
        try:
            return Ignored(read_beneath(directory, each, IGNORE_BYTES).decode(errors="replace"))
        except FileNotFoundError:
            continue
        except PatternError as error:
            raise ContextError(f"{each} {error}") from error
    return None
