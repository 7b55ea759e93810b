"""Where Firebrick keeps its things. Apart from the settings, because a command that only needs a path shall not wait for pydantic."""

from __future__ import annotations

import os
from pathlib import Path


class Home:
    """The layout below `FIREBRICK_HOME`. Every path the program writes to is a property here."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    @classmethod
    def find(cls) -> Home:
        """The home of this user: `FIREBRICK_HOME`, or `~/.firebrick`."""
        return cls(Path(os.environ.get("FIREBRICK_HOME") or "~/.firebrick"))

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def kernels(self) -> Path:
        return self.root / "kernels"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def kept(self) -> Path:
        return self.root / "kept"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def results(self) -> Path:
        """Artifacts and caches of jobs, with the database and the key that belong to them."""
        return self.root / "results"

    @property
    def tools(self) -> Path:
        """The tool cache: what jobs and administrators have put there."""
        return self.root / "tools"

    @property
    def containers(self) -> Path:
        """What is known of images that came from registries."""
        return self.root / "containers"

    @property
    def database(self) -> Path:
        return self.root / "firebrick.db"

    @property
    def nodes(self) -> Path:
        """One socket per running node, named after its process: `<pid>-<number>.sock`."""
        return self.root / "nodes"

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"
