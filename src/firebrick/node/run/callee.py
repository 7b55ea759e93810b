"""The workflows a run calls: local ones from its own sources, those of other repositories from where the node has its actions from."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from firebrick.confined import read_beneath
from firebrick.node.action.allowed import check_allowed
from firebrick.node.action.source import ActionSource
from firebrick.node.errors import NodeError, WorkflowSourceError
from firebrick.node.order import RunOrder
from firebrick.node.settings import NodeSettings
from firebrick.workflow.called import Calls, load_calls
from firebrick.workflow.reference import Target
from firebrick.workflow.uses import RemoteAction
from firebrick.workflow.yaml import MAX_BYTES

# A byte more than a workflow may have: the reader then says that it is too large, with its name.
_LIMIT: Final = MAX_BYTES + 1


async def load_called(order: RunOrder, actions: ActionSource, settings: NodeSettings) -> Calls:
    """All that the workflow of the order calls. Raises WorkflowError; WorkflowSourceError for a repository that cannot be had."""
    loading = load_calls(order.workflow)
    with ExitStack() as held:
        finder = _Finder(order.source.path, actions, settings, held)
        try:
            target = next(loading)
            while True:
                target = loading.send(await finder.find(target))
        except StopIteration as end:
            calls: Calls = end.value
            return calls
        finally:
            loading.close()


class _Finder:
    """Files of workflows. A ref means the same commit for the whole of a run."""

    def __init__(self, own: Path, actions: ActionSource, settings: NodeSettings, held: ExitStack) -> None:
        self._own = own
        self._actions = actions
        self._settings = settings
        self._held = held
        self._trees: dict[tuple[str, str], Path] = {}

    async def find(self, target: Target) -> bytes | None:
        root = await self._tree(target) if target.repository else self._own
        try:
            return await asyncio.to_thread(read_beneath, root, target.path, _LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # it leads elsewhere, or is no name a file can have
            raise WorkflowSourceError(f"cannot read the workflow {target}: {error}") from error

    async def _tree(self, target: Target) -> Path:
        key = (target.repository, target.ref)
        if key not in self._trees:
            owner, _, name = target.repository.partition("/")
            repository = RemoteAction(owner, name, target.path, target.ref)
            try:
                check_allowed(repository, self._settings)
                tree = await self._actions.fetch(repository, lambda _: None, self._held)
            except NodeError as error:
                raise WorkflowSourceError(f"cannot call the workflow {target}: {error}", hint=error.hint) from error
            self._trees[key] = tree.root
        return self._trees[key]
