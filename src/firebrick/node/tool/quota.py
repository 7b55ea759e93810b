"""Which tools go when there are too many, or they are too large together. Pure.

What an administrator has added stays, and takes no room of others. What pull requests have kept goes first, so that they push nothing of a branch
out; among equals, what was not used longest. A repository that keeps too much, or too many, makes room itself. A tree that several share counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from firebrick.eviction import Limit, surplus
from firebrick.node.tool.entry import ToolEntry
from firebrick.node.tool.limits import MOST_KEPT, MOST_KEPT_OF_ALL, ToolLimits


def beyond(entries: Iterable[ToolEntry], limits: ToolLimits) -> list[ToolEntry]:
    """Those of `entries` that have to go."""
    kept = sorted((entry for entry in entries if not entry.is_seed), key=_worth)
    tenants: defaultdict[str, list[ToolEntry]] = defaultdict(list)
    for entry in kept:
        tenants[entry.record.tenant].append(entry)
    gone = [entry for own in tenants.values() for entry in _surplus(own, Limit(MOST_KEPT, limits.repository_bytes))]
    files = {entry.file for entry in gone}
    left = (entry for entry in kept if entry.file not in files)
    return gone + _surplus(left, Limit(MOST_KEPT_OF_ALL, limits.total_bytes))


def _worth(entry: ToolEntry) -> tuple[bool, float, str]:
    return not entry.is_proposed, entry.used, entry.file.name


def _surplus(entries: Iterable[ToolEntry], limit: Limit) -> list[ToolEntry]:
    return surplus(
        entries, limit, size=lambda entry: entry.record.disk_bytes, content=lambda entry: entry.record.sha256
    )
