"""Homes for tests: each its own, with the images and kernels of the user's home, which `make setup` has filled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from firebrick.home import Home

ROOT = Path(__file__).resolve().parent.parent
# Taken when this is imported: a test may change the environment.
_USERS_HOME = Home.find()


def make_home(target: Path) -> Home:
    """A home at `target` with the images and kernels of the user's, and nothing else. What is done to it is not done to the user's."""
    home = Home(target)
    home.root.mkdir(parents=True)
    for shared in (_USERS_HOME.images, _USERS_HOME.kernels):
        if not shared.is_dir():
            raise FileNotFoundError(f"{shared} is not there: run `make setup` first")
        shutil.copytree(
            shared,
            home.root / shared.name,
            symlinks=True,
            copy_function=_link,
            ignore=shutil.ignore_patterns("staging", "locks", "claims"),
        )
    return home


def _link(source: str, target: str) -> None:
    """Files in a store are never written again, so a second name is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def environment(home: Home, **more: str) -> dict[str, str]:
    """What a program of Firebrick is started with: this environment with another home, and no colour."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIREBRICK_")}
    return {**kept, "FIREBRICK_HOME": str(home.root), "NO_COLOR": "1", "TERM": "dumb", **more}
