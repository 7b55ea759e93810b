"""`hashFiles`: the files it names are in the guest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import aclosing

from firebrick.guest.client import Files
from firebrick.node.glob import find_files, parse_searches
from firebrick.workflow.hashing import combine


async def hash_files(files: Files, patterns: Sequence[str], workspace: str) -> str:
    """The digest of all files below the workspace that match; see `firebrick.workflow.hashing`. Raises StepError, AgentError."""
    found = await find_files(files, parse_searches(patterns, workspace))
    inside = sorted(file.path for file in found if file.path.startswith(f"{workspace}/"))
    return combine([await _digest(files, path) for path in inside])


async def _digest(files: Files, path: str) -> str:
    digest = hashlib.sha256()
    async with aclosing(files.stream(path)) as chunks:
        async for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()
