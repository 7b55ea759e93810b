"""What `uses` of a calling job names: a workflow file of the same repository, or of another at a ref."""

from __future__ import annotations

import re
from dataclasses import dataclass

DIRECTORIES = (".forgejo/workflows", ".gitea/workflows", ".github/workflows")
"""Where a repository has its workflows: in the first of these that has any, as at Forgejo. Who has one besides `.github` wrote it for runners that are not
GitHub's."""
SUFFIXES = (".yml", ".yaml")
_REMOTE = re.compile(r"(?P<owner>[A-Za-z0-9_][A-Za-z0-9._-]*)/(?P<name>[A-Za-z0-9._-]+)/(?P<path>.+)")
_MAX_TEXT = 512
_INVALID = "invalid value workflow reference"


class TargetError(ValueError):
    """A `uses` that names no workflow. `expected` says what would have."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{_INVALID}: {message}")
        self.expected = "./.github/workflows/x.yml or owner/repository/.github/workflows/x.yml@ref"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A workflow file. `path` is relative to its repository's root; `repository` (`owner/name`) and `ref` are empty for the run's own."""

    path: str = ""
    repository: str = ""
    ref: str = ""

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}@{self.ref}" if self.repository else f"./{self.path}"


OWN = Target()


def parse_target(uses: str, within: Target = OWN) -> Target:
    """The workflow `uses` names in a file of `within`: a local one is of the same repository and ref as that. Raises TargetError."""
    if len(uses) > _MAX_TEXT or not uses.isprintable():
        raise TargetError("it is too long, or has characters that cannot be printed")
    if uses.startswith("./"):
        if "@" in uses:
            raise TargetError("cannot specify version when calling local workflows")
        return Target(_checked_path(uses[2:]), within.repository, within.ref)
    text, _, ref = uses.partition("@")
    match = _REMOTE.fullmatch(text)
    if match is None or match["name"] in {".", ".."}:
        raise TargetError(
            "references to workflows must be prefixed with format 'owner/repository/' or './' for local workflows"
        )
    path = _checked_path(match["path"])
    if not ref or ref.startswith("-") or ".." in ref or " " in ref:
        raise TargetError("no version specified")
    return Target(path, f"{match['owner']}/{match['name']}", ref)


def _checked_path(path: str) -> str:
    directory, _, name = path.rpartition("/")
    if not path.startswith(tuple(f"{known}/" for known in DIRECTORIES)):
        raise TargetError("references to workflows must be rooted in '.github/workflows'")
    if directory not in DIRECTORIES:
        raise TargetError("workflows must be defined at the top level of the .github/workflows/ directory")
    if not name.endswith(SUFFIXES) or name in SUFFIXES:
        raise TargetError("workflow file should have either a '.yml' or '.yaml' file extension")
    return path
