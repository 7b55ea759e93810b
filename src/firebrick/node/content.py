"""Files of a guest that the node reads whole. Whoever is root there decides what they are: so only regular files are opened, no more of them is
taken than asked for, and nothing is waited for without end."""

from __future__ import annotations

import asyncio
from typing import Final

from firebrick.guest.client import Files
from firebrick.node.errors import StepError

_PATIENCE_S: Final = 30.0


async def is_file(files: Files, path: str) -> bool:
    """Whether a regular file is at `path`, or a link to one. Raises AgentError where nothing is."""
    return (await files.stat(path)).kind == "file"


async def find_content(files: Files, path: str, limit: int) -> bytes | None:
    """The first `limit` bytes of the file at `path`; None where what is there is no regular file: a pipe might never give anything.

    Raises AgentError where nothing is there, or it cannot be read; StepError for what is slower than any file."""
    if not await is_file(files, path):
        return None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await files.read(path, limit=limit)
    except TimeoutError as error:
        raise StepError(f"cannot read {path}: it gave nothing for {_PATIENCE_S:g} s") from error
