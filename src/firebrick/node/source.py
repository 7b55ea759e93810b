"""The source tree of an order, made ready for a machine: the list of its files, and a `.git` with nothing of the host in it.

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
[uploadpack]
\tallowAnySHA1InWant = true
[core]
\thooksPath = /dev/null
\tfsmonitor = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """What goes into a workspace: `paths`, relative to `root`, of files and links; their directories are implied."""

    root: Path
    paths: tuple[bytes, ...]
    bytes: int


class SourceReader:
    """Reads one order's source. Make it with `open_source`."""

    def __init__(self, source: Source, scratch: Path, limit: int) -> None:
        self.source = source
        self.scratch = scratch
        self._limit = limit
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

    async def history(self, target: Path, *, depth: int) -> bool:
        """Make a repository in `target` whose HEAD is the order's commit and whose index matches it: `depth` commits deep, 0 for all
        of it with every branch and tag. Nothing of the source's configuration, hooks or remotes gets in. False where there is no commit."""
        sha = await self._commit()
        if sha is None:
            return False
        await self._git("init", "--quiet", "--template=", str(target), at=None)
        remote = f"file://{self.source.path.resolve()}"
        refspecs = [sha]
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow"]
        if depth:
            options.append(f"--depth={depth}")
        else:
            refspecs += ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        await self._git("fetch", *options, remote, *refspecs, at=target)
        await self._git("update-ref", self._tracking_ref(), sha, at=target)
        await self._set_head(target, sha)
        return True

    async def _set_head(self, target: Path, sha: str) -> None:
        """On a branch where the order names one, else detached."""
        branch = self.source.ref.removeprefix("refs/heads/")
        if branch != self.source.ref and await self._is_valid_ref(self.source.ref):
            await self._git("update-ref", self.source.ref, sha, at=target)
            await self._git("symbolic-ref", "HEAD", self.source.ref, at=target)
        else:
            await self._git("update-ref", "--no-deref", "HEAD", sha, at=target)
        await self._git("read-tree", "HEAD", at=target)

    async def _is_valid_ref(self, ref: str) -> bool:
        return (await self._git("check-ref-format", ref, check=False)).returncode == 0

    def _tracking_ref(self) -> str:
        ref = self.source.ref
        if ref.startswith("refs/tags/"):
            return ref
        return f"refs/remotes/origin/{ref.removeprefix('refs/heads/').removeprefix('refs/') or 'HEAD'}"

    async def _commit(self) -> str | None:
        if not await self.is_repository():
            return None
        wanted = self.source.sha or "HEAD"
        done = await self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}", check=False
        )
        return done.text.strip() or None

    def _measured(self, names: list[bytes]) -> Tree:
        """Leaves out what is in the index but not on disk, and directories (submodules)."""
        root, kept, total = os.fsencode(self.source.path), [], 0
        for name in names:
            try:
                status = os.lstat(root + b"/" + name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                kept.append(name)
                total += status.st_size
        if total > self._limit:
            raise SourceError(
                f"cannot put {self.source.path} into a machine: it is {total >> 20} MiB, the limit is {self._limit >> 20} MiB",
                hint="Let .gitignore name what is not source, or raise `source_limit_mib` in the [node] table of config.toml.",
            )
        return Tree(self.source.path, tuple(kept), total)

    async def _git(self, *words: str, at: Path | None = Path(), check: bool = True) -> process.Completed:
        """`at`: the directory git works in, by default the source."""
        where = self.source.path if at == Path() else at
        argv = [
            "git",
            *(["-C", str(where)] if where else []),
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.logAllRefUpdates=false",
            *words,
        ]
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
