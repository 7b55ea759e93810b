"""What of the corpus runs on which drivers, and on machines of which origin: `fresh` is booted, `restored` from a snapshot, `forked` from a restored one
that runs.

Every test runs on the fake and on restored machines of QEMU; those marked `every_way` on machines of every origin, and as root in a jail too,
as do those marked `detaching`. In
the lab it is Firecracker as in production, in its jail, for all tests, on all origins for those marked `every_way`; without a jail where that makes
a difference: how machines start, end and are found again. FIREBRICK_WAYS names other drivers, for all tests: FIREBRICK_WAYS=jailed, say, or
in the lab FIREBRICK_WAYS=firecracker.
"""

from __future__ import annotations

import os
from collections import Counter

from tests.conformance.drivers import ALWAYS, DETACHES, NETWORKED, OF_FIRECRACKER, SOMETIMES

MARKS = {
    "every_way": "for m and way: fresh, restored and forked machines of every driver",
    "real": "for m and way: real machines only; the fake has no kernel",
    "once": "for way: restored machines only, of each driver",
    "detaching": "for m and way: drivers whose machines can outlive their process",
    "rooms": "for m and way: it matters whether machines are in a jail",
    "networked": "for way: jailed machines in networks of their own",
}
ORIGINS = ("fresh", "restored", "forked")
IN_LAB = "FIREBRICK_LAB_FIRECRACKER" in os.environ
ASKED = tuple(name for name in os.environ.get("FIREBRICK_WAYS", "").split(",") if name)
NAMED = ASKED or (OF_FIRECRACKER if IN_LAB else ())
"""The drivers that were named, by whoever asks or by being in the lab."""

PACE = 10 if IN_LAB else 1
"""How many times longer things may take here: in the lab the processor is emulated."""

_USUAL = {"fake": ("fresh", "restored")}
_left: Counter[tuple[str, str]] = Counter()


def ways(marks: set[str]) -> list[tuple[str, str]]:
    """The drivers and origins for a test with these marks; what is left out is counted."""
    found = []
    for driver in NAMED or ALWAYS + (SOMETIMES if "every_way" in marks else ()):
        reason = _objection(driver, marks)
        if reason:
            _left[driver, reason] += 1
        else:
            found += [(driver, origin) for origin in _origins(driver, marks)]
    return found


def not_run() -> list[tuple[str, int, str]]:
    """Driver, number of tests, reason."""
    return [(driver, count, reason) for (driver, reason), count in sorted(_left.items())]


def others() -> list[str]:
    """The drivers that were not named."""
    return [name for name in (*ALWAYS, "jailed", *OF_FIRECRACKER) if name not in NAMED]


def _objection(driver: str, marks: set[str]) -> str:
    """Why the test is not run on it; empty if it is."""
    if driver == "fake" and "real" in marks:
        return "the fake has no kernel"
    if "detaching" in marks and driver not in DETACHES:
        return "its machines do not outlive their process"
    if "networked" in marks and driver != NETWORKED:
        return "its machines have no network of their own"
    if ASKED or not IN_LAB or driver == "firecracker-jailed":
        return ""
    return _objection_in_lab(driver, marks)


def _objection_in_lab(driver: str, marks: set[str]) -> str:
    if driver == NETWORKED:
        return (
            "" if "networked" in marks else "they run in a jail without a network, and tests/lab has machines with one"
        )
    return "" if "rooms" in marks else "they run in a jail; FIREBRICK_WAYS=firecracker runs them without"


def _origins(driver: str, marks: set[str]) -> tuple[str, ...]:
    if "every_way" in marks and (ASKED or not IN_LAB or driver == "firecracker-jailed"):
        return ORIGINS
    return ("restored",) if "once" in marks or driver != "fake" else _USUAL["fake"]
