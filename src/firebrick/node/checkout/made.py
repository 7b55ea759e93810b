"""All that a checkout comes to: repositories made on this host, the run's own files as they are, and where each of that goes in the machine.

Of the run's own repository at the run's own commit the files are those of the source, with what nobody has committed; its submodules, too, where they
are there. All else is what a commit has.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Final

from firebrick.forge.address import Address
from firebrick.forge.errors import ForgeError, RefNotFoundError
from firebrick.node.checkout.config import Entry
from firebrick.node.checkout.lfs import put_objects
from firebrick.node.checkout.origin import Origin, Origins
from firebrick.node.checkout.point import Point, own_point
from firebrick.node.checkout.repository import Repository, Scratch
from firebrick.node.checkout.sparse import sparse_paths
from firebrick.node.checkout.submodule import Submodule, read_submodules
from firebrick.node.checkout.wish import Submodules, Wish
from firebrick.node.errors import CheckoutError, NodeError
from firebrick.node.order import Source
from firebrick.node.source import SourceReader

_MOST_SUBMODULES: Final = 100
_MOST_LEVELS: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where one repository is in the machine: its files, and its `.git`; they are one within the other but for submodules."""

    tree: str
    git: str

    def below(self, submodule: Submodule) -> Place:
        return Place(f"{self.tree}/{submodule.path}", f"{self.git}/modules/{submodule.name}")

    def link(self) -> str:
        """What the file `.git` of a submodule says."""
        return f"gitdir: {posixpath.relpath(self.git, self.tree)}\n"

    def settings(self) -> tuple[Entry, ...]:
        return (("core", "", "worktree", posixpath.relpath(self.tree, self.git)),)


@dataclass(frozen=True, slots=True)
class Piece:
    """A directory of this host, or `only` these paths of it, and the directory of the machine it goes to."""

    root: Path
    target: str
    only: tuple[PurePath, ...] | None = None


@dataclass(slots=True)
class Made:
    """`pieces` go into the machine in their order; `url` is what `origin` is there, `ref` and `commit` are the outputs of the action, `said` is for
    the log."""

    url: str = ""
    ref: str = ""
    commit: str = ""
    pieces: list[Piece] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


class Making:
    """One checkout in the making."""

    def __init__(self, wish: Wish, source: SourceReader, origins: Origins, scratch: Scratch) -> None:
        self._wish = wish
        self._source = source
        self._origins = origins
        self._scratch = scratch
        self._made = Made()
        self._repositories = 0
        self._submodules = 0

    async def make(self) -> Made:
        """Raises CheckoutError, SourceError, OriginError, ForgeError."""
        wish, place = self._wish, Place(self._wish.path, f"{self._wish.path}/.git")
        is_own = not wish.repository and self._origins.is_own_forge(wish.server)
        if is_own and self._is_as_it_is():
            await self._make_own(place)
        elif is_own:
            await self._make_other(place)
        else:
            name = wish.repository or self._source.source.repository
            await self._make_fetched(self._origins.named(name, wish.ref, wish.server), place)
        return self._made

    def _is_as_it_is(self) -> bool:
        source = self._source.source
        short = source.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return self._wish.ref in ("", source.ref, short) or (self._wish.commit or "-") == source.sha

    async def _make_own(self, place: Place) -> None:
        source, wish = self._source.source, self._wish
        point = Point(commit=source.sha) if wish.commit else own_point(source.ref, source.sha)
        deeper = wish.depth != 1 or wish.tags or wish.lfs
        origin = self._origins.own() if deeper else self._origins.directory()
        self._made.ref = "" if wish.commit else wish.ref or source.ref
        self._made.commit = await self._as_it_is(self._source, origin, point, place, level=0) or source.sha
        if self._made.commit:
            self._made.said.append(f"HEAD is {self._made.commit} ({source.ref or 'no ref'})")

    async def _make_other(self, place: Place) -> None:
        """Another commit of the run's own repository."""
        origin = self._origins.own()
        try:
            await self._make_fetched(origin, place)
        except RefNotFoundError as error:
            if not origin.is_directory:
                raise
            hint = (
                f"The repository is the directory {self._source.source.path}: `git fetch` it there, or leave `ref` out."
            )
            raise CheckoutError(str(error), hint=hint) from error

    async def _make_fetched(self, origin: Origin, place: Place) -> None:
        wish = self._wish
        repository = await self._begin(origin)
        point = Point(commit=wish.commit) if wish.commit else await repository.find(wish.ref)
        self._made.ref = "" if wish.commit else wish.ref or point.ref
        self._made.commit = await self._fetched(repository, point, place, level=0)
        self._made.said.append(f"HEAD is {self._made.commit} ({point.ref or 'no ref'})")

    # --- one repository ---

    async def _begin(self, origin: Origin) -> Repository:
        if not self._repositories:
            self._made.url = origin.url
        self._repositories += 1
        repository = Repository(origin, self._scratch.directory / str(self._repositories), self._scratch)
        await repository.create()
        return repository

    async def _fetched(self, repository: Repository, point: Point, place: Place, *, level: int) -> str:
        """A commit of a repository, with its files."""
        wish = self._wish
        commit = await repository.fetch(point, depth=wish.depth, tags=wish.tags and not level)
        await repository.check_out(point, commit, files=True, sparse=None if level else wish.sparse)
        more = await self._with_submodules(repository, commit, place, None, level=level)
        objects = await self._objects(repository, repository.path, place)
        await self._finish(repository, point, place, more, level=level, files=True)
        self._made.pieces += objects
        return commit

    async def _as_it_is(
        self, reader: SourceReader, origin: Origin, point: Point, place: Place, *, level: int
    ) -> str | None:
        """The files of a source, and the history it has at `origin`; its commit, if it has any."""
        wish, tree = self._wish, await reader.tree()
        commit = await reader.commit()
        paths: Sequence[bytes] = tree.paths
        if wish.sparse is not None and not level:
            draft = Repository(origin, self._scratch.directory / "sparse", self._scratch)
            paths = await sparse_paths(draft, tree.paths, wish.sparse)
        only = tuple(PurePath(os.fsdecode(path)) for path in paths)
        self._made.pieces.append(Piece(tree.root, place.tree, only))
        self._made.pieces += await asyncio.to_thread(self._empty, tree.submodules, place)
        self._made.said.append(
            f"{len(paths)} files of {reader.source.repository} as they are on the host, in {place.tree}"
        )
        if commit is None:
            self._made.said.append("The source has no commit: there is no .git in the workspace.")
            return None
        repository = await self._begin(origin)
        point = replace(point, commit=commit)
        await repository.fetch(point, depth=wish.depth, tags=wish.tags and not level)
        await repository.check_out(point, commit, files=False, sparse=None if level else wish.sparse)
        more = await self._with_submodules(repository, commit, place, reader, level=level)
        objects = await self._objects(repository, tree.root, place, await reader.git_directory())
        await self._finish(repository, point, place, more, level=level, files=False)
        self._made.pieces += objects
        return commit

    def _empty(self, directories: Sequence[bytes], place: Place) -> list[Piece]:
        """The directories of submodules, which git wants to be there."""
        root = self._scratch.directory / f"{self._repositories}.empty"
        for directory in directories:
            if not directory.startswith(b"/") and b".." not in directory.split(b"/"):
                (root / os.fsdecode(directory)).mkdir(parents=True, exist_ok=True)
        return [Piece(root, place.tree)] if root.exists() else []

    async def _finish(
        self, repository: Repository, point: Point, place: Place, more: Sequence[Entry], *, level: int, files: bool
    ) -> None:
        """What of the repository goes where."""
        repository.finish(point, [*(place.settings() if level else ()), *more])
        apart = repository.path.with_name(f"{repository.path.name}.git")
        repository.git_directory.rename(apart)
        if level:
            (repository.path / ".git").write_text(place.link())
        if level or files:
            self._made.pieces.append(Piece(repository.path, place.tree))
        self._made.pieces.append(Piece(apart, place.git))

    async def _objects(
        self, repository: Repository, root: Path, place: Place, history: Path | None = None
    ) -> list[Piece]:
        """What takes the places of pointers of Git LFS among the files in `root`, if that is asked for; `history` may have it, before its origin."""
        if not self._wish.lfs:
            return []
        target = self._scratch.directory / f"{repository.path.name}.lfs"
        own = [Address("", "file", "", os.fspath(history))] if history is not None else []
        count = await put_objects(repository, root, target, [*own, repository.origin.address])
        self._made.said.append(f"{count} objects of Git LFS, in {place.tree}")
        return [Piece(target, place.tree)] if count else []

    # --- submodules ---

    async def _with_submodules(
        self, repository: Repository, commit: str, place: Place, reader: SourceReader | None, *, level: int
    ) -> list[Entry]:
        """Make those that are asked for, of a repository whose files are those of `reader` or, without one, of the commit; what its configuration says
        of them."""
        if self._wish.submodules is Submodules.NONE or (level and self._wish.submodules is not Submodules.NESTED):
            return []
        modules = await read_submodules(repository, commit, most=_MOST_SUBMODULES - self._submodules)
        if modules and level >= _MOST_LEVELS:
            raise CheckoutError(f"the submodules of {repository.origin.url} are more than {_MOST_LEVELS} levels deep")
        self._submodules += len(modules)
        entries: list[Entry] = []
        for module in modules:
            url = await self._submodule(repository.origin, module, place.below(module), reader, level=level + 1)
            entries += [("submodule", module.name, "active", "true"), ("submodule", module.name, "url", url)]
        return entries

    async def _submodule(
        self, parent: Origin, module: Submodule, place: Place, reader: SourceReader | None, *, level: int
    ) -> str:
        try:
            inner = await self._populated(reader, module) if reader is not None else None
            if inner is not None:
                origin = self._origins.nested(parent, module.url, inner.source.path)
                await self._as_it_is(inner, origin, Point(commit=module.commit), place, level=level)
                return origin.url
            origin = self._origins.submodule(parent, module.url, module.commit)
            await self._fetched(await self._begin(origin), Point(commit=module.commit), place, level=level)
        except (ForgeError, NodeError) as error:
            raise CheckoutError(f"cannot check out the submodule '{module.path}': {error}", hint=error.hint) from error
        self._made.said.append(f"Submodule path '{module.path}': checked out '{module.commit}'")
        return origin.url

    async def _populated(self, reader: SourceReader, module: Submodule) -> SourceReader | None:
        """The submodule in the source, if somebody has checked it out there, and what git would read of it is in the source, too."""
        root = reader.source.path.resolve()
        path = root / module.path
        if await asyncio.to_thread(path.resolve) != path or not (path / ".git").exists():
            return None
        source = Source(path=path, repository=module.path, ref="", sha="")
        inner = SourceReader(source, reader.scratch, reader.limit)
        history = await inner.git_directory()
        if history is None or not history.resolve().is_relative_to(self._source.source.path.resolve()):
            return None
        return inner
