"""Paths that inputs of native actions name."""

from __future__ import annotations

import posixpath

from firebrick.node.errors import StepError


def inside(workspace: str, path: str) -> str:
    """`path`, relative to the workspace, as an absolute one. Raises StepError where it leads out of it."""
    target = posixpath.normpath(posixpath.join(workspace, path))
    if target != workspace and not target.startswith(f"{workspace}/"):
        raise StepError(f"cannot use the path {path!r}: it is not below the workspace")
    return target
