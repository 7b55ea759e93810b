"""A chroot in which its VMM makes nothing any more: what can grow there is what is there, each file within the limit on its size.

Firecracker makes its sockets itself, and so needs directories it may write until it has them. From then on they are root's, and passable. A machine
that is restored may run for a moment before that: what has appeared meanwhile, and nobody has made, gives a VMM away that was taken over at once, which
Firecracker's filters keep from removing it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError
from firebrick.machine.seat import Seat

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST: Final = 1000
"""Names there can be: a chroot has some twenty."""


@contextmanager
def rising(root: Path, seat: Seat, made: frozenset[str]) -> Iterator[None]:
    """The seat's user can make nothing in the directory `root`, and below it, from the end of the context on; meanwhile it may have made the names
    `made`, at the top. Raises HostError where it has made others."""
    before = _names(root)
    yield
    now = _names(root, seat)
    if strange := sorted(now - before - made):
        raise HostError(
            f"a VMM has made {strange[0]} in its jail, which nobody told it to: it was taken over",
            hint="Do not run what it was started from again.",
        )


def _names(root: Path, seat: Seat | None = None) -> set[str]:
    """Of all there is, as paths from `root`; where a seat is given, every directory is taken from its user first."""
    found: set[str] = set()
    waiting = [""]
    while waiting and len(found) < _MOST:
        prefix = waiting.pop()
        fd = os.open(root / prefix, _OPEN)
        try:
            if seat is not None:
                os.fchown(fd, 0, seat.gid)
                os.fchmod(fd, 0o710)
            with os.scandir(fd) as entries:
                for entry in entries:
                    found.add(name := f"{prefix}{entry.name}")
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
        finally:
            os.close(fd)
    return found
