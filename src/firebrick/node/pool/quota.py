"""Which templates go when there are too many, and which repositories use one.

A repository pushes out templates of its own: of those whose users all have many, the one with the fewest users goes, and of these the one nobody has used
for longest. One that somebody with fewer templates uses too is that one's as well, so what is common stays.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from firebrick.eviction import last_use
from firebrick.machine import HostError
from firebrick.machine.atomic import write

_FILE: Final = "users"
_MOST_USERS: Final = 8
"""Names of users that are kept with a template: what so many use is nobody's own."""
_MOST_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Use:
    """A template: when it was used last, in seconds since 1970, and by whom; nobody is known of one that was made for no job."""

    path: Path
    at: float
    users: frozenset[str]


def beyond(templates: Sequence[Use], most: int, *, spared: Path) -> list[Use]:
    """Those that have to go so that there are no more than `most`, in the order they go; `spared` never does. Pure."""
    left = list(templates)
    gone: list[Use] = []
    while len(left) > max(1, most):
        counts = Counter(user for each in left for user in each.users)
        gone.append(min((each for each in left if each.path != spared), key=lambda each: _worth(each, counts)))
        left.remove(gone[-1])
    return gone


def _worth(template: Use, counts: Counter[str]) -> tuple[int, int, float]:
    """What is least goes first."""
    fewest = min((counts[user] for user in template.users), default=0)
    return -fewest, len(template.users), template.at


def note_user(path: Path, tenant: str) -> None:
    """`tenant` uses the template. What cannot be written is not known: the template is of use all the same. Blocking."""
    user = hashlib.sha256(tenant.encode(errors="surrogateescape")).hexdigest()[:16]
    users = _users(path)
    if tenant and user not in users:
        with contextlib.suppress(HostError):
            write(path / _FILE, msgspec.json.encode([user, *users][:_MOST_USERS]))


def use_of(path: Path) -> Use:
    """What is known of a template. Blocking."""
    return Use(path, last_use(path), frozenset(_users(path)))


def _users(path: Path) -> list[str]:
    try:
        with (path / _FILE).open("rb") as file:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=list[str])
    except (OSError, msgspec.MsgspecError):
        return []
