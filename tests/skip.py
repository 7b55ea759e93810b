"""Which tests may be skipped: those `FIREBRICK_ALLOW_SKIPS` names, glob patterns of test ids separated by spaces."""

from __future__ import annotations

import fnmatch
import os


def is_allowed(nodeid: str) -> bool:
    return any(fnmatch.fnmatchcase(nodeid, pattern) for pattern in os.environ.get("FIREBRICK_ALLOW_SKIPS", "").split())
