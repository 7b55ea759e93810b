"""The source tree of an order, as it is on this host: the list of its files, and which commit it is of.

Git runs here with a configuration of our own: no hooks, no helpers, no transport but local files, no lazy fetching. It reads the repository; it
never checks anything out, so no filter of the repository runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick import process
from firebrick.node.errors import SourceError
from firebrick.node.order import Source
from firebrick.task import shielded

_TIMEOUT: Final = 300.0
_LIST_LIMIT: Final = 256 << 20
_CONFIG: Final = """\
[safe]
\tdirectory = *
[core]
\thooksPath = /dev/null
\tfsmonitor = false
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """What goes into a workspace: `paths`, relative to `root`, of files and links; their directories are implied. `submodules` are the directories
    that repositories of their own are in, or would be."""

    root: Path
    paths: tuple[bytes, ...]
    size: int
    submodules: tuple[bytes, ...] = ()


class SourceReader:
    """Reads one order's source. Make it with `open_source`. `limit` is the most bytes of its files."""

    def __init__(self, source: Source, scratch: Path, limit: int) -> None:
        self.source = source
        self.scratch = scratch
        self.limit = limit
        self._config = scratch / "gitconfig"
        self._config.write_text(_CONFIG)

    async def is_repository(self) -> bool:
        done = await self._git("rev-parse", "--git-dir", check=False)
        return done.returncode == 0

    async def tree(self) -> Tree:
        """The files git knows and the untracked ones it does not ignore; every file where the source is no repository.

        Raises SourceError where they are more than the limit."""
        if await self.is_repository():
            done = await self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
            names = sorted({name for name in done.stdout.split(b"\0") if name})
        else:
            names = await asyncio.to_thread(lambda: sorted(_walk(self.source.path)))
        return await asyncio.to_thread(self._measured, names)

    async def commit(self) -> str | None:
        """The order's commit, or else the one that is checked out; None where there is none."""
        if not await self.is_repository():
            return None
        wanted = self.source.sha or "HEAD"
        done = await self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}", check=False
        )
        return done.text.strip() or None

    def _measured(self, names: list[bytes]) -> Tree:
        """Leaves out what is in the index but not on disk."""
        root, total = os.fsencode(self.source.path), 0
        kept: list[bytes] = []
        submodules: list[bytes] = []
        for name in names:
            try:
                status = os.lstat(root + b"/" + name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                kept.append(name)
                total += status.st_size
            elif stat.S_ISDIR(status.st_mode) and not name.endswith(
                b"/"
            ):  # with one it is a repository this one does not know
                submodules.append(name)
        if total > self.limit:
            raise SourceError(
                f"cannot put {self.source.path} into a machine: it is {total >> 20} MiB, the limit is {self.limit >> 20} MiB",
                hint="Let .gitignore name what is not source, or raise `source_limit_mib` in the [node] table of config.toml.",
            )
        return Tree(self.source.path, tuple(kept), total, tuple(submodules))

    async def git_directory(self) -> Path | None:
        """Where the history of the source is; None where it has none."""
        done = await self._git("rev-parse", "--absolute-git-dir", check=False)
        return Path(os.fsdecode(done.stdout.removesuffix(b"\n"))) if done.returncode == 0 else None

    async def _git(self, *words: str, check: bool = True) -> process.Completed:
        argv = ["git", "-C", str(self.source.path), "-c", "core.fsmonitor=false", *words]
        env = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_ALLOW_PROTOCOL": "file",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "HOME": str(self.scratch),
        }
        hint = "`git` is needed on the host to read a repository."
        try:
            return await process.run(argv, env=env, timeout=_TIMEOUT, limit=_LIST_LIMIT, check=check, hint=hint)
        except process.ProcessError as error:
            raise SourceError(f"cannot read the repository {self.source.path}: {error}", hint=error.hint) from error


@asynccontextmanager
async def open_source(source: Source, scratch: Path, *, limit: int) -> AsyncIterator[SourceReader]:
    """`scratch` is made, and removed at the end. `limit`: the most bytes of files a workspace may get.

    Raises SourceError where there is no such source."""
    if not source.path.is_dir():
        raise SourceError(f"there is no directory {source.path}")
    scratch.mkdir(mode=0o700)
    try:
        yield SourceReader(source, scratch, limit)
    finally:
        await shielded(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))


def _walk(root: Path) -> Iterator[bytes]:
    """Files and links below `root`, relative to it; links are not followed."""
    base = os.fsencode(root) + b"/"
    pending = [b""]
    while pending:
        below = pending.pop()
        with os.scandir(base + below) as entries:
            for entry in entries:
                path = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + b"/")
                else:
                    yield path
