"""Getting one tree out of a repository nobody trusts.

    init      an empty repository without a template: no hook, no configuration but git's own defaults
    fetch     the branch at depth 1; where another commit of it is meant its history, until that is proved to be in it; a commit alone by its name
    compare   which files differ from another commit, where somebody asks
    checkout  files, without filters, hooks and submodules

While this goes on a watch measures what has arrived, and ends it at the limit. The tree keeps its `.git` (one commit deep, no secret in it): a job
may want `git describe`. Nothing in the tree is ever run on this host; it is read and sent into a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.forge.address import Address, check_branch, check_commit
from firebrick.forge.changes import changed_paths
from firebrick.forge.errors import CloneError, RefError, RefNotFoundError
from firebrick.forge.git import FETCH, Git
from firebrick.forge.limits import CloneLimits, bounded
from firebrick.task import shielded
from firebrick.tree import remove as remove_tree

_DEEPER: Final = ("--depth=64", "--depth=1024", "--unshallow")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A tree on this host: where it is, and what. `ref` is `refs/heads/…`, `refs/tags/…`, `refs/pull/…`, or the commit where no name is known: it
    names what the commit is proved to be of. `changed` are the files that differ from the commit it was to be compared with, None where
    that is not known."""

    path: Path
    sha: str
    ref: str
    changed: tuple[str, ...] | None = None


async def clone(
    address: Address,
    target: Path,
    *,
    branch: str = "",
    commit: str = "",
    compare: str = "",
    limits: CloneLimits | None = None,
) -> Checkout:
    """Put the tree of a commit, of the last commit of a branch (or a tag, or a full `refs/…`), or of the default branch, into `target`, which must
    not exist yet. `compare` asks for the files that differ from that commit, or, as `^`, from the first parent.

    A commit alone is fetched by its name where the server allows that; with a branch it must be in the branch's history: forges give out by name
    what strangers have proposed, too. On failure and on cancellation nothing is left of `target`. Raises a ForgeError."""
    limits = limits or CloneLimits()
    for name, check in ((branch, check_branch), (commit, check_commit), (compare.removeprefix("^"), check_commit)):
        if name:
            check(name)
    target.mkdir(parents=True)  # as any checkout: what is above it keeps others out
    private = target.with_name(target.name + ".home")
    try:
        private.mkdir(mode=0o700, exist_ok=True)
        git = Git(address, target, home=private, max_bytes=limits.size_bytes, cpu_s=2 * int(limits.seconds) + 1)
        work = _Clone(git, address.url, target).run(branch, commit, compare)
        return await bounded(work, address.url, target, limits)
    except BaseException:
        await shielded(asyncio.to_thread(remove_tree, target))
        raise
    finally:
        await shielded(asyncio.to_thread(remove_tree, private))


class _Clone:
    """One clone, step by step."""

    def __init__(self, git: Git, url: str, target: Path) -> None:
        self._git = git
        self._url = url
        self._target = target

    async def run(self, branch: str, commit: str, compare: str) -> Checkout:
        await self._git.run("init", "--quiet", "--template=")
        ref, sha = await self._fetch(branch, commit)
        changed = await changed_paths(self._git, self._url, compare, sha) if compare else None
        await self._check_out(ref, sha)
        await self._git.run("config", "remote.origin.url", self._url)
        return Checkout(self._target, sha, ref, changed)

    async def _fetch(self, branch: str, commit: str) -> tuple[str, str]:
        if not branch and len(commit) in (40, 64):
            with contextlib.suppress(RefNotFoundError, CloneError):
                return commit, await self._fetch_commit(commit)
        ref = await self._fetch_tip(branch or await self._default_branch())
        tip = await self._git.commit(_tracking(ref))
        if tip is None:
            raise CloneError(f"cannot clone {self._url}: {ref} is no commit")
        if tip.startswith(commit):
            return ref, tip
        return ref, await self._find(commit, ref)

    async def _find(self, commit: str, ref: str) -> str:
        """The full name of a commit other than the branch's last one, which is in its history."""
        for depth in _DEEPER:
            await self._git.run(*FETCH, depth, self._url, f"+{ref}:{_tracking(ref)}")
            found = await self._git.commit(commit)
            if found and await self._is_ancestor(found, _tracking(ref)):
                return found
            if not (self._target / ".git" / "shallow").exists():
                break
        raise RefNotFoundError(
            f"cannot clone {self._url}: {ref.split('/', 2)[-1]} has no commit {commit}",
            hint="Check the branch and the commit; one that was forced out of the branch, or is only proposed for it, is not of it. Without a branch a commit is built as itself, with caches of its own.",
        )

    async def _is_ancestor(self, commit: str, of: str) -> bool:
        try:
            await self._git.run("merge-base", "--is-ancestor", commit, of)
        except CloneError:
            return False
        return True

    async def _fetch_commit(self, commit: str) -> str:
        await self._git.run(*FETCH, "--depth=1", self._url, commit)
        found = await self._git.commit(commit)
        if found is None:
            raise RefNotFoundError(f"cannot clone {self._url}: {commit} is no commit")
        return found

    async def _fetch_tip(self, branch: str) -> str:
        """Fetch the last commit of a branch, or else of a tag of this name, or of just what a full name says; returns which of them there is."""
        if branch.startswith("refs/"):
            return await self._fetch_full(branch)
        ref = f"refs/heads/{branch}"
        try:
            await self._git.run(*FETCH, "--depth=1", self._url, f"+{ref}:{_tracking(ref)}")
        except RefNotFoundError as missing:
            ref = f"refs/tags/{branch}"
            try:
                await self._git.run(*FETCH, "--depth=1", self._url, f"+{ref}:{ref}")
            except RefNotFoundError:
                raise missing from None
        return ref

    async def _fetch_full(self, ref: str) -> str:
        """Of a proposed merge, which not every forge makes, the head where there is none."""
        try:
            await self._git.run(*FETCH, "--depth=1", self._url, f"+{ref}:{_tracking(ref)}")
        except RefNotFoundError:
            if not (ref.startswith("refs/pull/") and ref.endswith("/merge")):
                raise
            ref = f"{ref.removesuffix('/merge')}/head"
            await self._git.run(*FETCH, "--depth=1", self._url, f"+{ref}:{_tracking(ref)}")
        return ref

    async def _default_branch(self) -> str:
        said = await self._git.run("ls-remote", "--symref", self._url, "HEAD")
        for line in said.splitlines():
            if line.startswith("ref: refs/heads/") and line.endswith("\tHEAD"):
                try:
                    return check_branch(line.removeprefix("ref: refs/heads/").removesuffix("\tHEAD"))
                except RefError as error:
                    raise CloneError(
                        f"cannot clone {self._url}: the server names a default branch git cannot have"
                    ) from error
        raise RefNotFoundError(
            f"cannot clone {self._url}: it has no default branch", hint="Is the repository empty? Else name a branch."
        )

    async def _check_out(self, ref: str, sha: str) -> None:
        where = (
            ("--no-track", "-B", ref.removeprefix("refs/heads/")) if ref.startswith("refs/heads/") else ("--detach",)
        )
        await self._git.run("checkout", "--quiet", "--force", "--no-recurse-submodules", *where, sha, "--")


def _tracking(ref: str) -> str:
    return ref.replace("refs/heads/", "refs/remotes/origin/", 1)
