"""The workflows a run calls: local ones from its own sources, those of other repositories from where the node has these."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

from firebrick.confined import OutsideError, read_beneath
from firebrick.node.errors import NodeError
from firebrick.node.order import RunOrder
from firebrick.workflow.called import Calls, load_calls
from firebrick.workflow.reference import Target
from firebrick.workflow.yaml import MAX_BYTES

# A byte more than a workflow may have: the reader then says that it is too large, with its name.
_LIMIT: Final = MAX_BYTES + 1


class Repositories(Protocol):
    """Files of other repositories."""

    async def tree(self, repository: str, ref: str) -> Path:
        """A directory with the files of `owner/name` at what `ref` means now; nothing in it changes while the run goes on.

        Raises NodeError, where there is no such repository or ref too."""


class NoRepositories:
    """`Repositories` of a node that has none."""

    async def tree(self, repository: str, ref: str) -> Path:
        raise NodeError(
            f"cannot read the workflow of {repository}@{ref}: this node has no repositories but the run's own",
            hint="Copy the workflow into the repository and call it as ./.github/workflows/x.yml.",
        )


async def load_called(order: RunOrder, repositories: Repositories) -> Calls:
    """All that the workflow of the order calls. Raises WorkflowError, NodeError."""
    loading = load_calls(order.workflow)
    try:
        target = next(loading)
        while True:
            target = loading.send(await _find(target, order, repositories))
    except StopIteration as end:
        calls: Calls = end.value
        return calls
    finally:
        loading.close()


async def _find(target: Target, order: RunOrder, repositories: Repositories) -> bytes | None:
    root = await repositories.tree(target.repository, target.ref) if target.repository else order.source.path
    try:
        return await asyncio.to_thread(read_beneath, root, target.path, _LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OutsideError as error:
        raise NodeError(f"cannot read the workflow {target}: {error}") from error
