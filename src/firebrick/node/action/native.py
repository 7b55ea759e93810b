"""The actions the node does itself, whatever their version: no code of theirs runs, and none has to be had. What does them is imported when a job
uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from firebrick.node.action.use import NativeUse
from firebrick.workflow.uses import RemoteAction

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

_CHECKOUT: Final = (
    "repository",
    "ref",
    "token",
    "ssh-key",
    "ssh-known-hosts",
    "ssh-strict",
    "ssh-user",
    "persist-credentials",
    "path",
    "clean",
    "filter",
    "sparse-checkout",
    "sparse-checkout-cone-mode",
    "fetch-depth",
    "fetch-tags",
    "show-progress",
    "lfs",
    "submodules",
    "set-safe-directory",
    "github-server-url",
    "allow-unsafe-pr-checkout",
)
_UPLOAD: Final = (
    "name",
    "path",
    "if-no-files-found",
    "retention-days",
    "compression-level",
    "overwrite",
    "include-hidden-files",
    "archive",
)
_DOWNLOAD: Final = (
    "name",
    "artifact-ids",
    "path",
    "pattern",
    "merge-multiple",
    "github-token",
    "repository",
    "run-id",
    "skip-decompress",
    "digest-mismatch",
)


async def _checkout(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    from firebrick.node.checkout.checkout import checkout

    return await checkout(bench, number, inputs)


async def _upload(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    from firebrick.node.action.artifact import upload_artifact

    return await upload_artifact(bench, number, inputs)


async def _download(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    from firebrick.node.action.artifact import download_artifact

    return await download_artifact(bench, number, inputs)


NATIVE: Final[Mapping[str, NativeUse]] = {
    "actions/checkout": NativeUse(_checkout, _CHECKOUT),
    "actions/upload-artifact": NativeUse(_upload, _UPLOAD),
    "actions/download-artifact": NativeUse(_download, _DOWNLOAD),
}
"""By the name of their repository. Each gets its inputs by their names in lower case, and raises StepError, SourceError, AgentError, TreeError."""


def is_native(action: RemoteAction) -> bool:
    return not action.path and action.repository.lower() in NATIVE
