"""Which files two commits differ in, asked of git on this host: names alone, of trees, with nothing of the repository configured or run."""

from __future__ import annotations

from typing import Final

from firebrick.forge.errors import CloneError, CloneLimitError, RefNotFoundError
from firebrick.forge.git import FETCH, Git

# As many bytes of names as filters look at; a larger change is one of any path.
MOST_NAMES: Final = 1 << 18
_NONE: Final = frozenset("0")


async def changed_paths(git: Git, url: str, base: str, sha: str) -> tuple[str, ...] | None:
    """The files that differ between the commits `base` (or `^`, the first parent of `sha`) and `sha`, which is there already. A rename is
    a file that went and one that came. None where that cannot be known: `base` is none or gone, or there are too many.

    Raises a ForgeError where a limit of the clone is reached."""
    if set(base) <= _NONE:
        return None
    try:
        old = await _parent(git, url, sha) if base == "^" else await _fetched(git, url, base)
        said = await git.run(
            *("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-commit-id", old, sha, "--"),
            limit=MOST_NAMES,
        )
    except CloneLimitError:
        raise
    except (RefNotFoundError, CloneError):
        return None
    return tuple(name for name in said.split("\0") if name)


async def _fetched(git: Git, url: str, base: str) -> str:
    await git.run(*FETCH, "--depth=1", url, base)
    return f"{base}^{{commit}}"


async def _parent(git: Git, url: str, sha: str) -> str:
    """The first parent; of a commit without one, the tree without a file."""
    await git.run(*FETCH, "--depth=2", url, sha)
    parents = (await git.run("rev-list", "--parents", "--max-count=1", sha, "--")).split()[1:]
    return parents[0] if parents else (await git.run("hash-object", "-t", "tree", "/dev/null")).strip()
