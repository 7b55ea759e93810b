"""The memory of a snapshot that is a difference: which pages it has, and how a chain of differences becomes one memory again.

`memory.ranges` says which ranges of the file `memory` count: pairs of 64 bit numbers, little-endian, low and high in bytes, rising and apart.
They are noted as soon as the difference is written, so that nothing depends on what a copy of the file has for holes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from firebrick.machine import disk, memory
from firebrick.machine.errors import SnapshotError

MEMORY: Final = "memory"
RANGES: Final = "memory.ranges"
LONGEST: Final = 16
"""So many snapshots may make up one memory; then it is time to flatten them."""

_PAIR: Final = struct.Struct("<QQ")
_PROBE: Final = ".probe"


def note_ranges(draft: Path) -> None:
    """Write down where the difference `draft/memory` has data. Raises SnapshotError where the file system does not tell by the page."""
    if not _tells_pages(draft / _PROBE):
        raise SnapshotError(
            f"cannot keep a difference in {draft.parent}: its file system does not tell which pages of a file were written",
            hint="Take a full snapshot there, or the difference on ext4, xfs, btrfs or tmpfs.",
        )
    with (draft / MEMORY).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        (draft / RANGES).write_bytes(b"".join(_PAIR.pack(*pair) for pair in memory.data_extents(file.fileno(), size)))


def read_ranges(snapshot: Path) -> list[tuple[int, int]]:
    """What counts of the difference in the directory `snapshot`. Raises SnapshotError where the record makes no sense."""
    try:
        ranges = [(low, high) for low, high in _PAIR.iter_unpack((snapshot / RANGES).read_bytes())]
        size = (snapshot / MEMORY).stat().st_size
    except (OSError, struct.error) as error:
        raise SnapshotError(f"cannot restore {snapshot}: {RANGES} is damaged: {error}") from error
    at = 0
    for low, high in ranges:
        if not at <= low < high <= size:
            raise SnapshotError(f"cannot restore {snapshot}: {RANGES} is damaged: {low} to {high} makes no sense")
        at = high
    return ranges


def flatten(snapshots: Sequence[Path], target: Path) -> None:
    """Make the new file `target` the memory of a chain: `snapshots` are its directories, the full one first. Blocks while it copies."""
    full, *differences = snapshots
    memory.copy_sparse(full / MEMORY, target)
    target.chmod(0o600)
    for snapshot in differences:
        os.truncate(target, (snapshot / MEMORY).stat().st_size)
        memory.overlay(snapshot / MEMORY, read_ranges(snapshot), target)
    target.chmod(0o400)


def share_rest(snapshot: Path, names: Iterable[str], target: Path) -> None:
    """Names in the directory `target` for all files of a snapshot but its memory: links where they can be, else copies."""
    for name in names:
        if name not in (MEMORY, RANGES):
            disk.share(snapshot / name, target / name)


def _tells_pages(probe: Path) -> bool:
    """One page of zeros, written into the middle of a hole, must be found as just that."""
    low, high, size = 16 * memory.PAGE, 17 * memory.PAGE, 64 * memory.PAGE
    fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, bytes(high - low), low)
        return list(memory.data_extents(fd, size)) == [(low, high)]
    finally:
        os.close(fd)
        probe.unlink()
