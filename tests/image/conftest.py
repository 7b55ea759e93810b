from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image import ImageStore


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> ImageStore:
    return ImageStore(home)
