"""Which cache entries a run sees. Entries belong to the ref of the run that made them; a run reads those of its own ref, of the branch it would be
merged into, and of the default branch, in this order, and writes its own ref's alone. So nothing a pull request writes is ever read by a branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_BRANCH: Final = "refs/heads/"
PULL: Final = "refs/pull/"
# The ref of these is the base branch, and what they work on may well be a stranger's: they read, and write nothing.
_UNTRUSTED: Final = frozenset(
    {
        "discussion",
        "discussion_comment",
        "fork",
        "issue_comment",
        "issues",
        "pull_request_comment",
        "pull_request_target",
        "watch",
    }
)


@dataclass(frozen=True, slots=True)
class Scopes:
    """`read` in the order they are searched; `write` is None for a run that may write none."""

    read: tuple[str, ...]
    write: str | None


def scopes_of(event_name: str, ref: str, event: Mapping[str, object]) -> Scopes:
    """Of a run on `ref`, for the event `event_name` whose payload is `event`.

    A run without a ref has a scope of its own, which no branch can be named like."""
    own = ref or "no-ref"
    request = _at(event, "pull_request")
    candidates = [own, _branch(_at(request, "base", "ref")), _branch(_at(event, "repository", "default_branch"))]
    read = tuple(dict.fromkeys(candidate for candidate in candidates if candidate))
    return Scopes(read=read, write=own if _may_write(event_name, own, request) else None)


def _may_write(event_name: str, ref: str, request: object) -> bool:
    """A run for a pull request works on what is proposed: its ref must be the request's own, or it writes nothing."""
    if event_name in _UNTRUSTED:
        return False
    return ref.startswith(PULL) or not (event_name.startswith("pull_request") or request)


def _branch(name: object) -> str:
    if not isinstance(name, str) or not name:
        return ""
    return name if name.startswith("refs/") else _BRANCH + name


def _at(value: object, *path: str) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
