"""Where a job gets what is not in its own sources: actions of other repositories, and the program JavaScript actions run in."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firebrick.node.errors import ActionError
from firebrick.node.guest import Say
from firebrick.workflow.uses import RemoteAction


@dataclass(frozen=True, slots=True)
class ActionTree:
    """The files of a repository at one commit, on the host. Nothing in `root` is ever run here, nor changes any more."""

    root: Path
    commit: str


class ActionSource(Protocol):
    async def fetch(self, action: RemoteAction, say: Say, held: ExitStack) -> ActionTree:
        """The repository of `action` at what its `ref` means now; it stays until `held` is left. Any number of tasks may ask at once.

        Raises ActionError."""

    async def node(self, say: Say) -> Path:
        """A directory to be put into a machine, with `bin/node` in it. Raises ActionError."""


class NoActions:
    """An `ActionSource` of which nothing can be had."""

    async def fetch(self, action: RemoteAction, say: Say, held: ExitStack) -> ActionTree:  # noqa: ARG002 - the signature is ActionSource's
        raise ActionError(f"cannot get the action {str(action)!r}: this node has no actions")

    async def node(self, say: Say) -> Path:  # noqa: ARG002
        raise ActionError("cannot run a JavaScript action: this node has no Node.js")
