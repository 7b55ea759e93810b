"""Times as the database has them: microseconds since 1970."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

Clock = Callable[[], int]
SECOND: Final = 1_000_000


def now_us() -> int:
    return time.time_ns() // 1000


def rfc3339(microseconds: int) -> str:
    """As the protocols write it: `2026-01-02T03:04:05Z`."""
    return datetime.fromtimestamp(microseconds // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
