"""What a step asks of `actions/checkout`: its inputs, read as the action reads them."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from firebrick.node.errors import CheckoutError

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}")
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_SERVER: Final = re.compile(r"(https?://[A-Za-z0-9][A-Za-z0-9.-]{0,250}(?::[0-9]{1,5})?)/?", re.IGNORECASE)
_DEEPEST: Final = 10**9
_MOST_PATTERNS: Final = 500
_LONGEST_PATTERN: Final = 1000
_DEPTH: Final = "`fetch-depth` is {!r}, which is no number from 0: the whole history is fetched."

_WITHOUT_EFFECT: Final[Mapping[str, Iterable[str]]] = {
    "the host fetches with what its settings say, and no credential gets into the machine": (
        *("token", "ssh-key", "ssh-known-hosts", "ssh-strict", "ssh-user", "persist-credentials"),
    ),
    "the files belong to the user steps run as": ("set-safe-directory",),
    "every object of what is fetched is there": ("filter",),
    "nothing is shown while it is fetched": ("show-progress",),
    "nothing is refused for coming from a fork": ("allow-unsafe-pr-checkout",),
}


class Submodules(StrEnum):
    NONE = "none"
    DIRECT = "direct"
    NESTED = "nested"


@dataclass(frozen=True, slots=True)
class Sparse:
    """`patterns` are directories in cone mode, and else lines of a `.gitignore` for what there is to be."""

    patterns: tuple[str, ...]
    cone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`repository` is `owner/name`, and empty for the run's own; `ref` is as it is written; `path` is absolute, in the machine; `depth` counts
    commits, 0 is all of them; `server` is the address of the forge the step names, or empty."""

    repository: str = ""
    ref: str = ""
    path: str
    depth: int = 1
    tags: bool = False
    submodules: Submodules = Submodules.NONE
    sparse: Sparse | None = None
    lfs: bool = False
    clean: bool = True
    server: str = ""

    @property
    def commit(self) -> str:
        """The commit where `ref` is the whole name of one, else empty."""
        return self.ref.lower() if _COMMIT.fullmatch(self.ref) else ""


def read_wish(inputs: Mapping[str, str], *, workspace: str, own: str) -> Wish:
    """`own` is what the run's own repository is called. Raises CheckoutError, in the action's words where it has any."""
    return Wish(
        repository=_repository(inputs.get("repository", "").strip(), own),
        ref=inputs.get("ref", "").strip(),
        path=_path(inputs.get("path", "").strip(), workspace),
        depth=_depth(inputs.get("fetch-depth", "")),
        tags=_flag(inputs, "fetch-tags", default=False),
        submodules=_submodules(inputs.get("submodules", "").strip().lower()),
        sparse=_sparse(inputs),
        lfs=_flag(inputs, "lfs", default=False),
        clean=_flag(inputs, "clean", default=True),
        server=_server(inputs.get("github-server-url", "").strip()),
    )


def remarks(inputs: Mapping[str, str]) -> list[str]:
    """What to say of inputs that do not do what one might think; those that are empty are not given."""
    said = []
    if _number(inputs.get("fetch-depth", "")) is None:
        said.append(_DEPTH.format(inputs["fetch-depth"][:100]))
    for reason, names in _WITHOUT_EFFECT.items():
        given = [name for name in names if inputs.get(name, "").strip()]
        if given:
            said.append(f"Without effect: {', '.join(given)} ({reason}).")
    return said


def _repository(name: str, own: str) -> str:
    if not name or name.lower() == own.lower():
        return ""
    if not _REPOSITORY.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise CheckoutError(f"Invalid repository '{name[:300]}'. Expected format {{owner}}/{{repo}}.")
    return name


def _path(path: str, workspace: str) -> str:
    target = posixpath.normpath(posixpath.join(workspace, path or "."))
    if target != workspace and not target.startswith(f"{workspace}/"):
        raise CheckoutError(f"Repository path '{target}' is not under '{workspace}'")
    return target


def _depth(text: str) -> int:
    return _number(text) or 0


def _number(text: str) -> int | None:
    """As the action reads it; None where that is no number from 0."""
    try:
        number = float(text.strip() or "1")
    except ValueError:
        return None
    return min(math.floor(number), _DEEPEST) if math.isfinite(number) and number >= 0 else None


def _flag(inputs: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = inputs.get(name, "").strip().lower()
    return text == "true" if text else default


def _submodules(text: str) -> Submodules:
    return {"true": Submodules.DIRECT, "recursive": Submodules.NESTED}.get(text, Submodules.NONE)


def _sparse(inputs: Mapping[str, str]) -> Sparse | None:
    lines = [line.strip() for line in inputs.get("sparse-checkout", "").split("\n")]
    patterns = tuple(line for line in lines if line)
    if not patterns:
        return None
    if len(patterns) > _MOST_PATTERNS or any(len(line) > _LONGEST_PATTERN or "\0" in line for line in patterns):
        raise CheckoutError(
            f"`sparse-checkout` has more than {_MOST_PATTERNS} patterns, or one of more than {_LONGEST_PATTERN} characters"
        )
    return Sparse(patterns, _flag(inputs, "sparse-checkout-cone-mode", default=True))


def _server(url: str) -> str:
    if not url:
        return ""
    match = _SERVER.fullmatch(url)
    if match is None:
        raise CheckoutError(f"`github-server-url` is {url[:300]!r}", hint="It is an address like https://github.com.")
    return match[1].lower()
