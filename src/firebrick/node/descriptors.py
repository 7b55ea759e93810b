"""How many files and sockets a node may have open. What jobs do costs some, and what one job takes must not be missing for the others."""

from __future__ import annotations

import resource
from typing import Final

from firebrick.node.action.fetched import MOST_FETCHED
from firebrick.node.relay import CONNECTIONS

_ALWAYS: Final = 1024
# Of a connection to the artifact and cache services both ends are ours; each action is held while its job goes on. The rest is what its VMM, its agent and its log take.
_OF_A_MACHINE: Final = 2 * CONNECTIONS + MOST_FETCHED + 64


def allow_descriptors(machines: int) -> None:
    """Raise the limit of this process, which is often low for the sake of old programs, to what so many machines may take, as far as it may be
    raised. It is never lowered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ALWAYS + machines * _OF_A_MACHINE
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
