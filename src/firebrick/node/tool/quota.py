"""What has to go where there is not room for all. Pure.

What an administrator has added stays, and takes no room of others. What pull requests have kept goes first, so that they push nothing of a branch
out; among equals, what was not used longest. A repository that keeps too much, or too many, makes room itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from firebrick.node.tool.entry import ToolEntry
from firebrick.node.tool.limits import MOST_KEPT, MOST_KEPT_OF_ALL, ToolLimits


def surplus(entries: Iterable[ToolEntry], limits: ToolLimits) -> list[ToolEntry]:
    """Those of `entries` that have to go."""
    kept = sorted((entry for entry in entries if not entry.is_seed), key=_worth)
    tenants: dict[str, list[ToolEntry]] = {}
    for entry in kept:
        tenants.setdefault(entry.record.tenant, []).append(entry)
    gone = [entry for own in tenants.values() for entry in _beyond(own, limits.repository_bytes, MOST_KEPT)]
    files = {entry.file for entry in gone}
    return gone + _beyond([entry for entry in kept if entry.file not in files], limits.total_bytes, MOST_KEPT_OF_ALL)


def _worth(entry: ToolEntry) -> tuple[bool, float, str]:
    return not entry.is_proposed, entry.used, entry.file.name


def _beyond(entries: Sequence[ToolEntry], limit: int, most: int) -> list[ToolEntry]:
    """The first so many of `entries` without which the others are no more than `most`, and `limit` bytes. A tree that several share takes room once."""
    users: dict[str, int] = {}
    for entry in entries:
        users[entry.record.sha256] = users.get(entry.record.sha256, 0) + 1
    sizes = {entry.record.sha256: entry.record.room for entry in entries}
    total, gone = sum(sizes.values()), list[ToolEntry]()
    for entry in entries:
        if total <= limit and len(entries) - len(gone) <= most:
            break
        gone.append(entry)
        users[entry.record.sha256] -= 1
        if not users[entry.record.sha256]:
            total -= entry.record.room
    return gone
