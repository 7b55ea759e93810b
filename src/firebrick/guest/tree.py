"""Directory trees on the wire, in one pass, of any size: what both directions share, and the two of them over a stream.

The stream is a sequence of records, each followed by its extents where it is a file; docs/reference/agent-protocol.md has the
format. Local files are touched in threads, a block at a time, so neither direction ever holds more than a few hundred KiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct as Layout
from typing import Annotated, Literal, ParamSpec, TypeVar

from msgspec import Meta, Struct

from firebrick.guest.message import Size

MAX_EXTENT = 1 << 20
MAX_RECORD = 1 << 16
MAX_PATH = 4095
MAX_DEPTH = 256
"""Directories below each other: each costs an open file while the tree is walked."""

LENGTH = Layout("<I")
EXTENT = Layout("<QI")
END = LENGTH.pack(0)


Kind = Literal["file", "directory", "symlink", "hardlink"]


class Record(Struct, frozen=True, kw_only=True):
    """One thing of a tree. `path` is relative, "" the root; `size` is for files, `target` for links."""

    path: bytes
    kind: Kind
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    mtime_ns: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    uid: Size
    gid: Size
    size: Size | None = None
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class TreeCount:
    """What was moved: entries of any kind, and bytes of file content, holes not counted."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLimits:
    """What a download accepts from a guest. `file_bytes` bounds the size a file says it has, holes included."""

    entries: int = 1_000_000
    bytes: int = 16 << 30
    file_bytes: int = 1 << 40


_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a blocking call in a thread. A cancellation is raised only after the call has ended: it may hold open files."""
    job = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        raise


def next_block(blocks: Iterator[bytes]) -> bytes:
    """The next block, b"" after the last: what a thread can return."""
    return next(blocks, b"")
