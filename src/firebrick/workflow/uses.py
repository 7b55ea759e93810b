"""What `uses` of a step names: an action of the job's own sources, one of another repository, or an image."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ACTION = re.compile(
    r"(?P<owner>[A-Za-z0-9._-]{1,100})/(?P<repository>[A-Za-z0-9._-]{1,100})(?:/(?P<path>[^@\s\\\x00-\x1f\x7f]{1,500}))?@(?P<ref>[^\s\x00-\x1f\x7f]{1,255})"
)
_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_NO_NAMES = ("", ".", "..")


class UsesError(ValueError):
    """A `uses` of no known form. The message is GitHub's."""


@dataclass(frozen=True, slots=True)
class LocalAction:
    """`./path`: an action in the workspace. `path` is as written, and may lead anywhere."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class RemoteAction:
    """`owner/name[/path]@ref`. No part of owner, name and path is empty or leads up; what `ref` is, only git can say."""

    owner: str
    name: str
    path: str
    ref: str

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether `ref` is the full name of a commit, which means the same for ever."""
        return _COMMIT.fullmatch(self.ref) is not None

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}@{self.ref}" if self.path else f"{self.repository}@{self.ref}"


@dataclass(frozen=True, slots=True)
class DockerImage:
    """`docker://image`."""

    image: str

    def __str__(self) -> str:
        return f"docker://{self.image}"


Uses = LocalAction | RemoteAction | DockerImage


def parse_uses(text: str) -> Uses:
    """Raises UsesError."""
    if text.startswith("./") or text == ".":
        return LocalAction(text)
    if text.startswith("docker://") and text.removeprefix("docker://").strip():
        return DockerImage(text.removeprefix("docker://"))
    match = _ACTION.fullmatch(text)
    path = (match["path"] or "").strip("/") if match else ""
    if match is None or any(part in _NO_NAMES for part in (match["owner"], match["repository"], *_parts(path))):
        raise UsesError(f"Expected format {{org}}/{{repo}}[/path]@ref. Actual '{text}'")
    return RemoteAction(match["owner"], match["repository"], path, match["ref"])


def _parts(path: str) -> list[str]:
    return path.split("/") if path else []
