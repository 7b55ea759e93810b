"""`permissions`: what the token of a job may do. A job's replace those of its workflow; those of a called workflow may only be narrower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEVELS = ("none", "read", "write")
SCOPES = (
    "actions", "artifact-metadata", "attestations", "checks", "contents", "deployments", "discussions", "id-token", "issues", "models",
    "organization-projects", "packages", "pages", "pull-requests", "repository-projects", "security-events", "statuses",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Permissions:
    """The level of every scope, `none` for those that `scopes` leaves out."""

    scopes: Mapping[str, str] = field(default_factory=dict)

    def level(self, scope: str) -> str:
        return self.scopes.get(scope, "none")

    @property
    def granted(self) -> dict[str, str]:
        """What is more than nothing, by scope."""
        return {scope: level for scope, level in sorted(self.scopes.items()) if level != "none"}

    def excess(self, allowed: Permissions) -> list[tuple[str, str, str]]:
        """Scopes in which this asks for more than `allowed`: the scope, the level asked for, the level allowed."""
        return [
            (scope, level, allowed.level(scope))
            for scope, level in sorted(self.scopes.items())
            if LEVELS.index(level) > LEVELS.index(allowed.level(scope))
        ]


def read_permissions(value: object) -> Permissions | None:
    """What the file says at `permissions`: `read-all`, `write-all`, or scopes with their levels; None where it says nothing."""
    if isinstance(value, str):
        level = value.removesuffix("-all")
        return Permissions(dict.fromkeys(SCOPES, level)) if level in LEVELS else None
    if isinstance(value, Mapping):
        return Permissions({str(scope): level for scope, level in value.items() if level in LEVELS})
    return None


def effective(workflow: Permissions | None, job: Permissions | None, caller: Permissions | None) -> Permissions | None:
    """Of a job: its own, else its workflow's, else what the caller of the workflow has; None is what the repository gives by default."""
    return next((one for one in (job, workflow, caller) if one is not None), None)


def describe_excess(job: str, asked: Permissions | None, allowed: Permissions | None) -> str:
    """The sentence on a job of a called workflow that asks for more than its caller has; empty where it does not."""
    found = asked.excess(allowed) if asked is not None and allowed is not None else []
    if not found:
        return ""
    wanted = ", ".join(f"{scope}: {level}" for scope, level, _ in found)
    limits = ", ".join(f"{scope}: {level}" for scope, _, level in found)
    return f"The nested job '{job}' is requesting '{wanted}', but is only allowed '{limits}'."
