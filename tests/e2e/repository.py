"""Repositories made at test time, honest ones and others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "PATH": os.environ["PATH"],
}


@dataclass(frozen=True)
class Repository:
    """A repository at `path`, on branch main."""

    path: Path

    def git(self, *arguments: str, data: bytes | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", self.path, *arguments], env=_ENVIRONMENT, input=data, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, files: Mapping[str, str | bytes], message: str = "x") -> str:
        """Put these files on top of what is there; the commit's name."""
        for name, content in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", data=content)

    def tree(self, *entries: tuple[str, str, str]) -> str:
        """A tree of (mode, name, object), in this order and however wrong."""
        raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(sha) for mode, name, sha in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", data=raw)

    def point_main_at(self, tree: str) -> str:
        """Make a commit of this tree what main is."""
        sha = self.git("commit-tree", tree, "-m", "x")
        self.git("update-ref", "refs/heads/main", sha)
        return sha


def make_repository(path: Path, files: Mapping[str, str | bytes] | None = None) -> Repository:
    path.mkdir(parents=True)
    repository = Repository(path)
    repository.git("init", "--quiet", "--initial-branch=main")
    if files is not None:
        repository.commit(files)
    return repository
