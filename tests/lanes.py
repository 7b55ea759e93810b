"""Which tests may run beside which: how `tools/test` shares them out among lanes, processes of pytest-xdist.

The tests of a file stay together: they share what is made once for it, a home or a template, and may look at all of it. Those that look at what this host has
of a thing - the seats its jails are named after, the table of its firewall and the lock on it - are in one lane, one after the other. What takes long comes first,
so that the lanes end together.
"""

from __future__ import annotations

# Machines in jails and networks: they take seats, and look whether a seat they had is free again.
_SEATED = ("tests/conformance/", "tests/network/", "tests/machine/test_jail.py", "tests/machine/test_network.py")
# They share a server.
_PROJECTS = "tests/scenarios/projects/"
# Longest first: what runs in machines, what starts other programs, what starts none.
_ORDER = (
    _PROJECTS,
    *_SEATED,
    "tests/scenarios/runs/",
    "tests/machine/",
    "tests/e2e/",
    "tests/docs/",
    "tests/image/",
    "tests/agent/",
    "tests/pager/",
    "tests/scenarios/",
    "tests/",
)


def share_of(nodeid: str) -> str:
    """What a test stays together with: its file, in most cases."""
    if nodeid.startswith(_SEATED):
        return "seats"
    return _PROJECTS if nodeid.startswith(_PROJECTS) else nodeid.partition("::")[0]


def place_of(nodeid: str) -> int:
    """When its turn is: what takes long has a low number."""
    return next(place for place, start in enumerate(_ORDER) if nodeid.startswith(start))
