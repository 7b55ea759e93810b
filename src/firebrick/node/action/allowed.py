"""Which actions of other repositories a node lets into its machines."""

from __future__ import annotations

from fnmatch import fnmatchcase

from firebrick.node.errors import ActionError
from firebrick.node.settings import NodeSettings
from firebrick.workflow.uses import RemoteAction


def check_allowed(action: RemoteAction, settings: NodeSettings) -> None:
    """Raises ActionError, which says what the settings want."""
    if not is_allowed(action, settings):
        raise ActionError(f"the action {str(action)!r} is not allowed on this node", hint=allowed_hint(settings))
    if settings.actions_pinned and not action.is_pinned:
        raise ActionError(
            f"the action {str(action)!r} is not pinned to a full-length commit SHA",
            hint="`actions_pinned` in the [node] table of config.toml wants `@` and 40 hexadecimal digits.",
        )


def is_allowed(action: RemoteAction, settings: NodeSettings) -> bool:
    """Whether `actions_allow` lets the repository in, whatever is wanted of it."""
    patterns = settings.actions_allow
    return not patterns or any(_matches(action, pattern) for pattern in patterns)


def allowed_hint(settings: NodeSettings) -> str:
    return f"`actions_allow` in the [node] table of config.toml allows {', '.join(settings.actions_allow)}."


def _matches(action: RemoteAction, pattern: str) -> bool:
    """`owner/*`, `owner/name` (with all its folders and at any ref), `owner/name/path@ref`. Owners and names have no case."""
    named, separator, ref = pattern.partition("@")
    if separator and not fnmatchcase(action.ref, ref):
        return False
    whole = f"{action.repository}/{action.path}" if action.path else action.repository
    return any(fnmatchcase(text.lower(), named.lower()) for text in (action.repository, whole))
