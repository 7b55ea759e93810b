"""The actions of other repositories that one job uses: which commits they are, and what their files say. All before any of them runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from firebrick.node.action.allowed import check_allowed
from firebrick.node.action.definition import read_from_tree
from firebrick.node.action.native import is_native
from firebrick.node.action.source import ActionSource, ActionTree
from firebrick.node.errors import ActionError
from firebrick.node.event import ActionResolved
from firebrick.node.log import JobLog
from firebrick.node.settings import NodeSettings
from firebrick.workflow.action_file import ActionFile, CompositeRuns
from firebrick.workflow.syntax import Step
from firebrick.workflow.uses import RemoteAction, Uses, UsesError, parse_uses

MOST_FETCHED: Final = 200
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Known:
    """An action that was fetched."""

    action: RemoteAction
    tree: ActionTree
    file: ActionFile

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.file.runs.steps if isinstance(self.file.runs, CompositeRuns) else ()


class FetchedActions:
    """`known` is by what `uses` says, `trees` by `owner/name@ref`; these stay until `held` is left."""

    def __init__(self, source: ActionSource, settings: NodeSettings, log: JobLog, held: ExitStack) -> None:
        self.known: dict[str, Known] = {}
        self.trees: dict[str, ActionTree] = {}
        self._source = source
        self._settings = settings
        self._log = log
        self._held = held

    async def prepare(self, steps: Iterable[Step]) -> None:
        """Fetch every action of another repository that these steps use, and those that these use. Raises ActionError."""
        seen: set[str] = set()
        level = _by_name(_remote(steps))
        while level:
            await self._fetch_all([action for name, action in level.items() if name not in self.known])
            seen |= level.keys()
            within = _by_name(action for name in level for action in _remote(self.known[name].steps))
            level = {name: action for name, action in within.items() if name not in seen}

    async def _fetch_all(self, actions: Sequence[RemoteAction]) -> None:
        if len(self.known) + len(actions) > MOST_FETCHED:
            raise ActionError(f"the job uses more than {MOST_FETCHED} actions of other repositories")
        for action in actions:
            check_allowed(action, self._settings)
        await self._fetch_trees({tree_of(action): action for action in actions})
        for action in actions:
            tree = self.trees[tree_of(action)]
            file = await read_from_tree(tree.root, action.path, called=str(action))
            self.known[str(action)] = Known(action, tree, file)

    async def _fetch_trees(self, wanted: Mapping[str, RemoteAction]) -> None:
        """Some at once, because a forge is far; told in the order of the steps. Of several failures the first in that order is raised."""
        new = {name: action for name, action in wanted.items() if name not in self.trees}
        failures: dict[str, ActionError] = {}
        turns = asyncio.Semaphore(_AT_ONCE)

        async def fetch(name: str, action: RemoteAction) -> None:
            try:
                async with turns:
                    self.trees[name] = await self._source.fetch(action, self._log.node, self._held)
            except ActionError as error:
                failures[name] = error

        async with asyncio.TaskGroup() as group:
            for name, action in new.items():
                group.create_task(fetch(name, action), name=f"action-{name}")
        for name in (name for name in new if name not in failures):
            commit = self.trees[name].commit
            self._log.node(f"Download action repository '{name}' (SHA:{commit})")
            self._log.emit(ActionResolved(at=time.time(), job=self._log.job, action=name, commit=commit))
        for name in new:
            if name in failures:
                raise failures[name]


def parsed_uses(uses: str) -> Uses:
    """Raises ActionError."""
    try:
        return parse_uses(uses)
    except UsesError as error:
        raise ActionError(str(error)) from error


def _by_name(actions: Iterable[RemoteAction]) -> dict[str, RemoteAction]:
    return {str(action): action for action in actions}


def tree_of(action: RemoteAction) -> str:
    """What all actions of one repository at one ref share."""
    return f"{action.repository}@{action.ref}"


def _remote(steps: Iterable[Step]) -> Iterable[RemoteAction]:
    """The actions these steps take from other repositories, without those the node does itself."""
    for step in steps:
        action = parsed_uses(step.uses) if step.uses is not None else None
        if isinstance(action, RemoteAction) and not is_native(action):
            yield action
