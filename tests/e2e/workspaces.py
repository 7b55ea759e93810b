"""What a checkout puts into a machine, laid out on this host: git can be asked about it as a job would ask."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firebrick.forge.limits import CloneLimits, bounded
from firebrick.node.checkout.made import Made, Making, Piece
from firebrick.node.checkout.origin import Origins
from firebrick.node.checkout.repository import Scratch
from firebrick.node.checkout.wish import read_wish
from firebrick.node.order import Source
from firebrick.node.settings import NodeSettings
from firebrick.node.source import open_source
from tests.e2e.repository import Repository

WORKSPACE = "/w"
SERVER = "https://github.com"


@dataclass
class Workspaces:
    """Checkouts of runs of `source`, each into a new workspace below `directory`."""

    directory: Path
    source: Source
    settings: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    limits: CloneLimits = field(default_factory=lambda: CloneLimits(size_mib=64, seconds=60))

    async def checkout(self, **inputs: str) -> tuple[Repository, Made]:
        """Inputs with `_` for `-`. The workspace, with the checkout in it."""
        self.count += 1
        root = self.directory / f"workspace-{self.count}"
        async with self.made(**inputs) as made:
            for piece in made.pieces:
                copy(piece, root)
        wish = read_wish(hyphens(inputs), workspace=WORKSPACE, own=self.source.repository)
        return Repository(root / wish.path.lstrip("/")), made

    @asynccontextmanager
    async def made(self, **inputs: str):
        wish = read_wish(hyphens(inputs), workspace=WORKSPACE, own=self.source.repository)
        directory = self.directory / f"source-{self.count}"
        async with open_source(self.source, directory, limit=64 << 20) as reader:
            scratch = Scratch(directory / "scratch", self.limits)
            scratch.directory.mkdir()
            scratch.prepare()
            origins = Origins(self.source, NodeSettings(**self.settings), SERVER)
            work = Making(wish, reader, origins, scratch).make()
            yield await bounded(work, "x", scratch.directory, scratch.limits)
        assert not directory.exists()


def hyphens(inputs: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in inputs.items()}


def copy(piece: Piece, root: Path) -> None:
    target = root / piece.target.lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    if piece.only is None:
        shutil.copytree(piece.root, target, symlinks=True, dirs_exist_ok=True)
        return
    for path in piece.only:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(piece.root / path, target / path, follow_symlinks=False)
