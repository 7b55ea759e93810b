"""Root file systems from a tar archive that somebody writes while it is read: what a machine sends of its own root."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from firebrick.image.build import ROOT_FILE, what_failed
from firebrick.image.errors import BuildError, HostLacksError
from firebrick.image.model import ImageManifest
from firebrick.image.shelf import digest_of
from firebrick.image.squashfs import squash_tar
from firebrick.process import ProcessError, ProgramNotFoundError

KIND: Final = "archive"

WriteArchive = Callable[[int], Awaitable[object]]
"""Writes an archive to a file descriptor, and leaves it open."""


async def build_archived(
    name: str, definition: str, write: WriteArchive, staging: Path, description: str
) -> ImageManifest:
    """Fill the empty directory `staging` with the root image of the archive. What it holds may come from anybody: it is read in the sandbox, and
    nothing of it becomes a file of this host. Raises BuildError, HostLacksError, and what `write` raises."""
    root = staging / ROOT_FILE
    try:
        await _squash(write, root)
    except ProgramNotFoundError as error:
        raise HostLacksError(f"cannot make the image {name}: {error}", hint=error.hint) from error
    except ProcessError as error:
        raise BuildError(f"cannot make the image {name}: {what_failed(error)}", hint=error.hint) from error
    return ImageManifest(
        digest=await asyncio.to_thread(digest_of, root),
        definition=definition,
        kind=KIND,
        size=root.stat().st_size,
        created=time.time(),
        description=description,
    )


async def _squash(write: WriteArchive, root: Path) -> None:
    """Both ends at once. Each closes its own end of the pipe when it is done: the other has to see that."""
    reading, writing = os.pipe()
    ends = {reading, writing}
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for fd, work in ((reading, partial(squash_tar, target=root)), (writing, write)):
                tasks.append(group.create_task(_at_end(ends, fd, work), name="image-archive"))
    except ExceptionGroup:
        # Where the reader failed, all the writer has seen is that nobody reads any more.
        raise next(error for task in tasks if (error := _failure(task)) is not None) from None
    finally:
        for fd in ends:  # of a task that was cancelled before it began
            os.close(fd)


async def _at_end(ends: set[int], fd: int, work: WriteArchive) -> None:
    try:
        await work(fd)
    finally:
        ends.remove(fd)
        os.close(fd)


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
