"""`permissions`: what the token of a job may do. A job's replace those of its workflow; those of a called workflow may only be narrower."""

from __future__ import annotations

from firebrick.workflow.syntax import Permissions

LEVELS = ("none", "read", "write")


def granted(permissions: Permissions) -> dict[str, str]:
    """What is more than nothing, by scope; `*` are all the others, of `read-all` and `write-all`."""
    named = {**permissions.scopes, "*": permissions.others}
    return {scope: level for scope, level in sorted(named.items()) if level != "none"}


def excess(asked: Permissions, allowed: Permissions) -> list[tuple[str, str, str]]:
    """Scopes in which one asks for more than the other has: the scope, the level asked for, the level allowed. `*` are all that neither names."""
    levels = [(scope, asked.level(scope), allowed.level(scope)) for scope in sorted({*asked.scopes, *allowed.scopes})]
    levels.append(("*", asked.others, allowed.others))
    return [one for one in levels if LEVELS.index(one[1]) > LEVELS.index(one[2])]


def effective(workflow: Permissions | None, job: Permissions | None, caller: Permissions | None) -> Permissions | None:
    """Of a job: its own, else its workflow's, else what the caller of the workflow has; None is what the repository gives by default."""
    return next((one for one in (job, workflow, caller) if one is not None), None)


def describe_excess(job: str, asked: Permissions | None, allowed: Permissions | None) -> str:
    """The sentence on a job of a called workflow that asks for more than its caller has; empty where it does not."""
    found = excess(asked, allowed) if asked is not None and allowed is not None else []
    if not found:
        return ""
    wanted = ", ".join(f"{scope}: {level}" for scope, level, _ in found)
    limits = ", ".join(f"{scope}: {level}" for scope, _, level in found)
    return f"The nested job '{job}' is requesting '{wanted}', but is only allowed '{limits}'."
