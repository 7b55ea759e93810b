"""The actions the node does itself, whatever their version: no code of theirs runs, and none has to be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firebrick.node.action.artifact import download_artifact, upload_artifact
from firebrick.node.action.checkout import checkout
from firebrick.node.action.use import NativeRun
from firebrick.workflow.uses import RemoteAction

NATIVE: Final[Mapping[str, NativeRun]] = {
    "actions/checkout": checkout,
    "actions/upload-artifact": upload_artifact,
    "actions/download-artifact": download_artifact,
}
"""By the name of their repository. Each gets its inputs by their names in lower case, and raises StepError, SourceError, AgentError, TreeError."""


def is_native(action: RemoteAction) -> bool:
    return not action.path and action.repository.lower() in NATIVE
