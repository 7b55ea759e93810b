"""What a name of a repository means right now: the commit of a tag or a branch, asked of the other end without fetching anything."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firebrick.forge.address import Address, check_branch
from firebrick.forge.errors import CloneError, CloneLimitError, RefNotFoundError
from firebrick.forge.git import Git
from firebrick.task import shielded
from firebrick.tree import remove as remove_tree

_LIMIT: Final = 1 << 20
_CPU_S: Final = 60
_PATIENCE_S: Final = 120.0
_LINE: Final = re.compile(r"(?P<sha>[0-9a-f]{40}|[0-9a-f]{64})\t(?P<ref>refs/\S+|HEAD)")
_HEAD: Final = "ref: refs/heads/"


async def resolve_default(address: Address, *, scratch: Path) -> tuple[str, str]:
    """The name of the default branch and its last commit. `scratch` is made, and removed again. Raises a ForgeError."""
    said = await _ask(address, ("--symref", address.url, "HEAD"), scratch)
    lines = said.splitlines()
    branch = next(
        (line.removeprefix(_HEAD)[:-5] for line in lines if line.startswith(_HEAD) and line[-5:] == "\tHEAD"), ""
    )
    sha = next((match["sha"] for match in map(_LINE.fullmatch, lines) if match and match["ref"] == "HEAD"), "")
    if not branch or not sha:
        raise RefNotFoundError(f"{address.url} has no default branch", hint="Is the repository empty?")
    return check_branch(branch), sha


async def resolve_ref(address: Address, name: str, *, scratch: Path) -> str:
    """The commit that the tag or branch `name` is; a tag comes first where there are both. `scratch` is made, and removed again.

    Raises a ForgeError."""
    check_branch(name)
    wanted = (f"refs/tags/{name}^{{}}", f"refs/tags/{name}", f"refs/heads/{name}")
    said = await _ask(address, (address.url, *wanted), scratch)
    found = {match["ref"]: match["sha"] for match in map(_LINE.fullmatch, said.splitlines()) if match}
    commit = next((found[ref] for ref in wanted if ref in found), None)
    if commit is None:
        raise RefNotFoundError(f"{address.url} has no branch or tag {name!r}")
    if len(commit) != 40:
        raise CloneError(f"{address.url} names its objects in a way that is not supported yet: SHA-256")
    return commit


async def _ask(address: Address, what: Sequence[str], scratch: Path) -> str:
    """What `git ls-remote` says."""
    scratch.mkdir(mode=0o700)
    try:
        git = Git(address, scratch, home=scratch, max_bytes=_LIMIT, cpu_s=_CPU_S)
        async with asyncio.timeout(_PATIENCE_S):
            return await git.run("ls-remote", *what, limit=_LIMIT)
    except TimeoutError:
        raise CloneLimitError(f"{address.url} did not answer within {_PATIENCE_S:g} s") from None
    finally:
        await shielded(asyncio.to_thread(remove_tree, scratch))
