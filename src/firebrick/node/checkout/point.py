"""What a checkout is of: a ref, a commit, or a commit and the ref it is to be found at. Which refs are fetched for it, and where HEAD is then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from firebrick.forge.address import check_branch
from firebrick.forge.errors import RefError

_HEADS: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"
_PULL: Final = "refs/pull/"
ALL_TAGS: Final = "+refs/tags/*:refs/tags/*"
ALL_BRANCHES: Final = "+refs/heads/*:refs/remotes/origin/*"
_FOLLOWED: Final = "refs/remotes/origin/"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Point:
    """`ref` is full (`refs/…`), or empty; `commit` is a full name, or empty where the ref says which it is. Not both are empty."""

    ref: str = ""
    commit: str = ""

    @property
    def branch(self) -> str:
        """Its name, or empty where it is no branch: HEAD is detached then."""
        return self.ref.removeprefix(_HEADS) if self.ref.startswith(_HEADS) else ""

    @property
    def is_tag(self) -> bool:
        return self.ref.startswith(_TAGS)

    @property
    def kept_at(self) -> str:
        """The ref it has in the workspace; empty for a commit alone."""
        if self.branch:
            return f"refs/remotes/origin/{self.branch}"
        if self.ref.startswith(_PULL):
            return f"refs/remotes/pull/{self.ref.removeprefix(_PULL)}"
        return self.ref

    @property
    def refspec(self) -> str:
        return f"+{self.commit or self.ref}:{self.kept_at}" if self.ref else self.commit

    @property
    def refspec_by_name(self) -> str:
        """The ref as it is now, whatever commit that is."""
        return f"+{self.ref}:{self.kept_at}"


def own_point(ref: str, commit: str) -> Point:
    """The point of a run: `ref` may be short as some events have it, a commit, or nothing git could have."""
    if not ref or _COMMIT.fullmatch(ref):
        return Point(commit=commit)
    full = ref if ref.startswith("refs/") else f"{_HEADS}{ref}"
    try:
        check_branch(full)
    except RefError:
        return Point(commit=commit)
    return Point(full, commit)


def candidates(ref: str, *, follows: bool) -> tuple[str, ...]:
    """The refs that `ref` may name, the first that is there is meant. With `follows` the repository is a person's own, who may have a branch of its
    origin without having made it one of this repository. Raises RefError."""
    check_branch(ref)
    heads = ref if ref.startswith(_HEADS) else f"{_HEADS}{ref}"
    branch = (heads, f"{_FOLLOWED}{heads.removeprefix(_HEADS)}") if follows else (heads,)
    if ref.startswith("refs/"):
        return branch if ref.startswith(_HEADS) else (ref,)
    return (*branch, f"{_TAGS}{ref}")


def found_point(ref: str, commit: str, *, follows: bool) -> Point:
    """The point at a ref that is there, at `commit` now."""
    if follows and ref.startswith((_HEADS, _FOLLOWED)):
        return Point(f"{_HEADS}{ref.removeprefix(_HEADS).removeprefix(_FOLLOWED)}", commit)
    return Point(ref)


def whole_history(refs: Iterable[str]) -> list[str]:
    """The refspecs for all of a person's own repository, which has these refs: its tags, its branches, and those of its origin it has no branch of
    that name for."""
    refs = tuple(refs)
    own = {ref.removeprefix(_HEADS) for ref in refs if ref.startswith(_HEADS)}
    above = {parent for branch in own for parent in _parents(branch)}
    followed = (ref for ref in refs if ref.startswith(_FOLLOWED) and ref != f"{_FOLLOWED}HEAD")
    more = [
        f"+{ref}:{ref}"
        for ref in followed
        if not {(name := ref.removeprefix(_FOLLOWED)), *_parents(name)} & own and name not in above
    ]
    return [ALL_BRANCHES, ALL_TAGS, *more]


def _parents(name: str) -> Iterator[str]:
    while (cut := name.rfind("/")) > 0:
        name = name[:cut]
        yield name
