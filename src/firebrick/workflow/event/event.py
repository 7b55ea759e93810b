"""What happened, as far as workflows ask: the event's name, its payload, and which files it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_NULL_SHA = "0" * 40
_PULL_REQUESTS = frozenset({"pull_request", "pull_request_target"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`payload` is the event as the forge sent it. `changed_paths` are the files it changes, relative to the repository's root; None where that
    is not known, and then filters for paths let the event pass."""

    name: str
    payload: Mapping[str, object] = field(default_factory=dict)
    changed_paths: tuple[str, ...] | None = None

    @property
    def action(self) -> str:
        """The activity (`opened`, `completed`, a type of `repository_dispatch`); empty where the event has none."""
        return text_at(self.payload, "action")

    @property
    def deletes(self) -> bool:
        """Whether it is a push that removed its ref."""
        return self.name == "push" and (
            self.payload.get("deleted") is True or text_at(self.payload, "after") == _NULL_SHA
        )

    @property
    def ref(self) -> str:
        """The full ref a run of this event works on."""
        number = self.payload.get("number")
        if self.name == "pull_request" and isinstance(number, int):
            return f"refs/pull/{number}/merge"
        if self.name == "pull_request_target":
            return _full(text_at(self.payload, "pull_request", "base", "ref"))
        if self.name == "merge_group":
            return text_at(self.payload, "merge_group", "head_ref")
        if self.name == "release":
            tag = text_at(self.payload, "release", "tag_name")
            return f"refs/tags/{tag}" if tag else ""
        ref = text_at(self.payload, "ref")
        if self.name == "create" and ref:
            return f"refs/tags/{ref}" if text_at(self.payload, "ref_type") == "tag" else _full(ref)
        default = text_at(self.payload, "repository", "default_branch")
        return _full(ref) if ref and self.name != "delete" else _full(default)

    @property
    def sha(self) -> str:
        """The commit a run of this event works on; empty where the payload does not say."""
        paths = {
            "push": ("after",),
            "pull_request": ("pull_request", "merge_commit_sha"),
            "pull_request_target": ("pull_request", "base", "sha"),
            "merge_group": ("merge_group", "head_sha"),
        }
        return text_at(self.payload, *paths[self.name]) if self.name in paths else ""

    @property
    def target(self) -> str:
        """The branch that filters for branches are asked about: the pushed one, that of the base, that of the run it follows."""
        if self.name in _PULL_REQUESTS:
            return text_at(self.payload, "pull_request", "base", "ref")
        if self.name == "workflow_run":
            return text_at(self.payload, "workflow_run", "head_branch")
        if self.name == "merge_group":
            return text_at(self.payload, "merge_group", "base_ref").removeprefix("refs/heads/")
        return text_at(self.payload, "ref").removeprefix("refs/heads/")

    @property
    def tag(self) -> str:
        """The tag that was pushed; empty for other events, and for branches."""
        ref = text_at(self.payload, "ref")
        return ref.removeprefix("refs/tags/") if self.name == "push" and ref.startswith("refs/tags/") else ""

    @property
    def skip_words(self) -> str:
        """What of the message of the pushed commit asks for no run, as `[skip ci]`; empty where nothing does."""
        message = text_at(self.payload, "head_commit", "message") if self.name == "push" else ""
        trailer = message.rstrip().rpartition("\n")[2].strip()
        if trailer in {"skip-checks: true", "skip-checks:true"}:
            return trailer
        return next((words for words in _SKIPS if words in message), "")


def pushed_paths(payload: Mapping[str, object]) -> tuple[str, ...] | None:
    """The files the commits of a push change, as its payload lists them; None where it does not."""
    commits = payload.get("commits")
    if not isinstance(commits, list):
        return None
    found: dict[str, None] = {}
    for commit in commits:
        for kind in ("added", "removed", "modified"):
            paths = commit.get(kind) if isinstance(commit, Mapping) else None
            if isinstance(paths, list):
                found |= dict.fromkeys(path for path in paths if isinstance(path, str))
    return tuple(found)


_SKIPS = ("[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]")


def _full(branch: str) -> str:
    return branch if not branch or branch.startswith("refs/") else f"refs/heads/{branch}"


def text_at(value: object, *path: str) -> str:
    """The text at a path of a payload, which is hostile; empty where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""
