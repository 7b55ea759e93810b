"""One repository of a checkout, made on this host as it will be in the workspace: fetched, with HEAD, configuration and files.

    create     empty, without a template
    find       what a ref of its origin is; without one, its default branch
    fetch      as deep as asked, with a ref for what is checked out
    check_out  HEAD and the index, and the files where they are wanted
    finish     its configuration, in which nothing of this host stands

git runs as it does for any repository nobody trusts (`firebrick.forge.git`): hooks, filters and whatever else would run something are none.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.forge.errors import CloneError, RefNotFoundError
from firebrick.forge.git import FETCH, Git
from firebrick.forge.limits import CloneLimits
from firebrick.node.checkout.config import Entry, config_text
from firebrick.node.checkout.origin import Origin
from firebrick.node.checkout.point import ALL_BRANCHES, ALL_TAGS, Point, candidates, found_point, whole_history
from firebrick.node.checkout.wish import Sparse

_FETCH: Final = (*FETCH, "--update-shallow", "--stdin")
_LISTED: Final = 64 << 20
_SMALL: Final = 1024
_LINE: Final = re.compile(r"(?P<sha>[0-9a-f]{40}|[0-9a-f]{64})\t(?P<ref>refs/\S+)")
_SYMBOLIC: Final = re.compile(r"ref: (?P<ref>refs/heads/\S+)\tHEAD")
# What the host wants of it while it is made: nothing of how it was made may be read in it.
_QUIET: Final[Sequence[Entry]] = (
    ("core", "", "repositoryformatversion", "0"),
    ("core", "", "bare", "false"),
    ("core", "", "logAllRefUpdates", "false"),
)
_OWN: Final[Sequence[Entry]] = (("fetch", "", "fsckObjects", "false"),)
_SHARED: Final = "[safe]\n\tdirectory = *\n[uploadpack]\n\tallowAnySHA1InWant = true\n[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n"


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where repositories of one checkout are made, and what that may take."""

    directory: Path
    limits: CloneLimits

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def shared(self) -> Path:
        """Configuration for both ends of git, where the other one is on this host, too."""
        return self.directory / "gitconfig"

    def prepare(self) -> None:
        self.home.mkdir(mode=0o700)
        self.shared.write_text(_SHARED)


class Repository:
    """See above. `path` has the files, `git_directory` the rest."""

    def __init__(self, origin: Origin, path: Path, scratch: Scratch) -> None:
        self.origin = origin
        self.path = path
        self.limits = limits = scratch.limits
        self.git = Git(
            origin.address,
            path,
            home=scratch.home,
            max_bytes=limits.size_bytes,
            cpu_s=2 * int(limits.seconds) + 1,
            config=scratch.shared if origin.is_directory else None,
        )
        self._sparse: Sparse | None = None

    @property
    def git_directory(self) -> Path:
        return self.path / ".git"

    async def create(self) -> None:
        self.path.mkdir()
        await self.git.run("init", "--quiet", "--template=")
        made = [*_QUIET, *(_OWN if self.origin.is_directory else ())]
        self._configure(made)

    # --- what is checked out ---

    async def find(self, ref: str) -> Point:
        """What `ref` means now; the default branch where it is empty. Raises a ForgeError, RefNotFoundError where there is no such thing."""
        if not ref:
            return Point(await self._default_branch())
        wanted = candidates(ref, follows=self.origin.is_directory)
        there = await self._refs(*wanted)
        name = next((name for name in wanted if name in there), None)
        if name is None:
            raise RefNotFoundError(f"A branch or tag with the name '{ref}' could not be found")
        return found_point(name, there[name], follows=self.origin.is_directory)

    async def _refs(self, *patterns: str) -> dict[str, str]:
        said = await self.git.run("ls-remote", self.origin.address.url, *patterns, limit=_LISTED)
        return {match["ref"]: match["sha"] for match in map(_LINE.fullmatch, said.splitlines()) if match}

    async def _default_branch(self) -> str:
        said = await self.git.run("ls-remote", "--symref", self.origin.address.url, "HEAD")
        match = next(filter(None, map(_SYMBOLIC.fullmatch, said.splitlines())), None)
        if match is None:
            raise RefNotFoundError(f"{self.origin.url} has no default branch")
        return candidates(match["ref"], follows=False)[0]

    async def fetch(self, point: Point, *, depth: int, tags: bool) -> str:
        """What `point` needs; the commit it is. Raises a ForgeError."""
        if not depth:
            await self._fetch_all()
            commit = await self.git.commit(point.kept_at or point.commit)
            if commit is not None and point.commit in ("", commit):
                return commit
        commit = await self._fetch_point(point, depth)
        if tags and depth:
            await self._fetch([ALL_TAGS], depth)
        return commit

    async def _fetch_all(self) -> None:
        refs = await self._refs() if self.origin.is_directory else None
        await self._fetch([ALL_BRANCHES, ALL_TAGS] if refs is None else whole_history(refs), 0)

    async def _fetch_point(self, point: Point, depth: int) -> str:
        if point.is_tag and point.commit:  # as it is, with its message, unless it has moved
            with contextlib.suppress(RefNotFoundError):
                await self._fetch([point.refspec_by_name], depth)
            if await self.git.commit(point.ref) == point.commit:
                return point.commit
        try:
            await self._fetch([point.refspec], depth)
        except (RefNotFoundError, CloneError):
            if not point.commit:
                raise
            await self._fetch_all()  # a server that gives no commit by its name
            if point.ref and await self.git.commit(point.commit) is not None:
                await self.git.run("update-ref", point.kept_at, point.commit)
        commit = await self.git.commit(point.commit or point.kept_at)
        if commit is None:
            raise RefNotFoundError(f"{self.origin.url} has no commit {point.commit or point.ref}")
        return commit

    async def _fetch(self, refspecs: Sequence[str], depth: int) -> None:
        options = [*_FETCH, f"--depth={depth}"] if depth else [*_FETCH]
        data = "".join(f"{refspec}\n" for refspec in refspecs).encode()
        await self.git.run(*options, self.origin.address.url, data=data)

    # --- how it is checked out ---

    async def check_out(self, point: Point, commit: str, *, files: bool, sparse: Sparse | None) -> None:
        """HEAD on the branch of `point`, or detached; an index that fits; with `files`, or a sparse index, the files too."""
        if point.branch:
            await self.git.run("update-ref", f"refs/heads/{point.branch}", commit)
        head = f"ref: refs/heads/{point.branch}" if point.branch else commit
        (self.git_directory / "HEAD").write_text(f"{head}\n")
        if sparse is not None:
            await self.set_sparse(sparse)
        await self.git.run("read-tree", *(("--reset", "-u") if files or sparse is not None else ()), "HEAD")

    async def set_sparse(self, sparse: Sparse) -> None:
        """Have the index, once it is read, leave out what `sparse` does not take. Raises a ForgeError for patterns that are none."""
        self._sparse = sparse
        data = "".join(f"{pattern}\n" for pattern in sparse.patterns).encode()
        mode = "--cone" if sparse.cone else "--no-cone"
        await self.git.run("sparse-checkout", "set", mode, "--stdin", data=data)

    def finish(self, point: Point, more: Sequence[Entry] = ()) -> None:
        """Write the configuration it has in the workspace."""
        (self.git_directory / "config.worktree").unlink(missing_ok=True)
        self._configure([*self._entries(point), *more])

    def _configure(self, entries: Sequence[Entry]) -> None:
        (self.git_directory / "config").write_bytes(config_text(entries).encode(errors="surrogateescape"))

    def _entries(self, point: Point) -> list[Entry]:
        entries: list[Entry] = [
            ("core", "", "repositoryformatversion", "0"),
            ("core", "", "filemode", "true"),
            ("core", "", "bare", "false"),
            ("core", "", "logallrefupdates", "true"),
        ]
        if self._sparse is not None:
            entries += [("core", "", "sparseCheckout", "true")]
            entries += [("core", "", "sparseCheckoutCone", "true")] if self._sparse.cone else []
        entries += [
            ("remote", "origin", "url", self.origin.url),
            ("remote", "origin", "fetch", ALL_BRANCHES),
            ("gc", "", "auto", "0"),
        ]
        if point.branch:
            entries += [
                ("branch", point.branch, "remote", "origin"),
                ("branch", point.branch, "merge", f"refs/heads/{point.branch}"),
            ]
        return entries

    async def small_blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of objects by their names, of those that are files of no more than a KiB."""
        data = "".join(f"{name}\n" for name in names).encode()
        told = await self.git.run("cat-file", "--batch-check", limit=_LISTED, data=data)
        sizes = [line.split() for line in told.splitlines()]
        small = [words[0] for words in sizes if words[1] == "blob" and int(words[2]) <= _SMALL]
        content = await self.git.read(
            "cat-file", "--batch", limit=_LISTED, data="".join(f"{name}\n" for name in small).encode()
        )
        return _contents(content)

    async def listed(self, *arguments: str) -> list[str]:
        """What a git command prints of paths, with `-z`."""
        said = await self.git.read(*arguments, limit=_LISTED)
        return await asyncio.to_thread(
            lambda: [name.decode(errors="surrogateescape") for name in said.split(b"\0") if name]
        )


def _contents(batch: bytes) -> dict[str, bytes]:
    """What `git cat-file --batch` prints: of each object a line with its name, its kind and its size, its content, and a newline."""
    found, at = {}, 0
    while at < len(batch):
        end = batch.index(b"\n", at)
        name, _, size = batch[at:end].decode().split()
        found[name] = batch[end + 1 : end + 1 + int(size)]
        at = end + 2 + int(size)
    return found
