"""What goes of what is kept within a limit, and when it was used last: when its file was last touched."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limit:
    """How many things are kept at most, and how many bytes of them."""

    count: int = sys.maxsize
    bytes: int = sys.maxsize


def surplus(
    things: Iterable[T], limit: Limit, *, size: Callable[[T], int], content: Callable[[T], Hashable] = id
) -> list[T]:
    """The first so many of `things`, which are in the order in which they go, without which the others are within the limit. What several have as
    their `content` counts once, as long as one of them is left. Pure."""
    left = list(things)
    last = {content(thing): number for number, thing in enumerate(left)}
    sizes = [size(thing) if last[content(thing)] == number else 0 for number, thing in enumerate(left)]
    total = sum(sizes)
    for gone, freed in enumerate(sizes):
        if total <= limit.bytes and len(left) - gone <= limit.count:
            return left[:gone]
        total -= freed
    return left


def touch(path: Path) -> None:
    """It is used now."""
    with contextlib.suppress(OSError):
        os.utime(path)


def last_use(path: Path) -> float:
    """In seconds since 1970. What is just going counts as used now."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
