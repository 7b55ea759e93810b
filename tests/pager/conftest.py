"""Where a machine lives, and its memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.pager.player import PAGE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Deeper than the name of a socket may be long."""
    path = tmp_path / ("deep" * 30)
    path.mkdir()
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """256 pages, no two alike."""
    path = tmp_path / "memory"
    path.write_bytes(random.Random(1).randbytes(256 * PAGE))
    return path
