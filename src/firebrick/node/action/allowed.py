"""Which actions of other repositories a node lets into its machines."""

from __future__ import annotations

from fnmatch import fnmatchcase

from firebrick.node.errors import ActionError
from firebrick.node.settings import NodeSettings
from firebrick.workflow.uses import RemoteAction


def check_allowed(action: RemoteAction, settings: NodeSettings) -> None:
    """Raises ActionError, which says what the settings want."""
    patterns = settings.actions_allow
    if patterns and not any(_matches(action, pattern) for pattern in patterns):
        raise ActionError(
            f"the action {str(action)!r} is not allowed on this node",
            hint=f"`actions_allow` in the [node] table of config.toml allows {', '.join(patterns)}.",
        )
    if settings.actions_pinned and not action.is_pinned:
        raise ActionError(
            f"the action {str(action)!r} is not pinned to a full-length commit SHA",
            hint="`actions_pinned` in the [node] table of config.toml wants `@` and 40 hexadecimal digits.",
        )


def _matches(action: RemoteAction, pattern: str) -> bool:
    """`owner/*`, `owner/name` (with all its folders and at any ref), `owner/name/path@ref`. Owners and names have no case."""
    named, separator, ref = pattern.partition("@")
    if separator and not fnmatchcase(action.ref, ref):
        return False
    whole = f"{action.repository}/{action.path}" if action.path else action.repository
    return any(fnmatchcase(text.lower(), named.lower()) for text in (action.repository, whole))
