"""The actions of one job: which commits they are, what of them is in the machine, and how many there are.

prepare(steps)   before there is a machine: fetch what steps name, and what composite actions among it name
open(uses)       an action as a step uses it, with the steps it has itself
place(...)       its files into the machine, once
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.node.action.allowed import check_allowed
from firebrick.node.action.definition import docker_file, read_from_guest, read_from_tree
from firebrick.node.action.native import NATIVE
from firebrick.node.action.source import ActionSource, ActionTree
from firebrick.node.action.use import CompositeUse, Entry, JavaScriptUse, NativeUse, Place, Use, entries_of
from firebrick.node.context import ACTIONS, EXTERNALS
from firebrick.node.errors import ActionError
from firebrick.node.event import ActionResolved
from firebrick.node.guest import Guest
from firebrick.node.log import JobLog
from firebrick.node.settings import NodeSettings
from firebrick.workflow.action_file import ActionFile, CompositeRuns, DockerRuns, JavaScriptRuns
from firebrick.workflow.syntax import Step
from firebrick.workflow.uses import DockerImage, LocalAction, RemoteAction, UsesError, parse_uses

MAX_DEPTH: Final = 9
"""Composite actions within one another."""
_MOST_FETCHED: Final = 200
_MOST_OPENED: Final = 1000
_MOST_STEPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    """An action that was fetched."""

    action: RemoteAction
    tree: ActionTree
    file: ActionFile


class JobActions:
    """See above. Used by one task at a time."""

    def __init__(self, source: ActionSource, settings: NodeSettings, log: JobLog) -> None:
        self._source = source
        self._settings = settings
        self._log = log
        self._known: dict[str, _Known] = {}
        self._trees: dict[str, ActionTree] = {}
        self._placed: set[str] = set()
        self._opened = 0
        self._steps = 0

    # --- what a job uses ---

    async def prepare(self, steps: Iterable[Step]) -> None:
        """Fetch every action of another repository that these steps use, and those that these use. Raises ActionError."""
        waiting = list(_remote(steps))
        while waiting:
            action = waiting.pop(0)
            if str(action) in self._known:
                continue
            if len(self._known) == _MOST_FETCHED:
                raise ActionError(f"the job uses more than {_MOST_FETCHED} actions of other repositories")
            known = self._known[str(action)] = await self._fetch(action)
            if isinstance(known.file.runs, CompositeRuns):
                waiting += _remote(known.file.runs.steps)

    async def _fetch(self, action: RemoteAction) -> _Known:
        check_allowed(action, self._settings)
        key = f"{action.repository}@{action.ref}"
        if key not in self._trees:
            tree = self._trees[key] = await self._source.fetch(action, self._log.node)
            self._log.node(f"Download action repository '{key}' (SHA:{tree.commit})")
            self._log.emit(ActionResolved(at=time.time(), job=self._log.job, action=key, commit=tree.commit))
        tree = self._trees[key]
        return _Known(action, tree, await read_from_tree(tree.root, action.path, called=str(action)))

    def open_known(self, entries: Iterable[Entry], depth: int) -> None:
        """Say what the steps use, as far as that is known before they run: everything but actions of the workspace.

        `depth` is the number of composite actions around them. Raises ActionError."""
        for entry in entries:
            if entry.step.uses is not None:
                entry.use = self._open(entry.step.uses, depth)

    async def open_local(self, path: str, guest: Guest, workspace: str, depth: int) -> Use:
        """The action in a folder of the workspace, as it is there now. Raises ActionError, AgentError."""
        folder = posixpath.normpath(posixpath.join(workspace, path))
        if folder != workspace and not folder.startswith(f"{workspace}/"):
            raise ActionError(f"cannot use {path!r}: it is not below the workspace")
        file = await read_from_guest(guest.files, folder, called=path)
        if isinstance(file.runs, CompositeRuns):
            await self.prepare(file.runs.steps)
        return self._made(file, Place(path=folder), depth)

    def _open(self, uses: str, depth: int) -> Use | None:
        match _parsed(uses):
            case RemoteAction() as action if _is_native(action):
                return NativeUse(NATIVE[action.repository.lower()])
            case RemoteAction() as action:
                return self._made_known(self._known[str(action)], depth)
            case DockerImage():
                return self._made(docker_file(uses, uses), Place(path=""), depth)
            case LocalAction():
                return None

    def _made_known(self, known: _Known, depth: int) -> Use:
        action = known.action
        tree = f"{action.repository}@{action.ref}"
        path = posixpath.join(ACTIONS, action.repository, action.ref, action.path).rstrip("/")
        place = Place(path=path, repository=action.repository, ref=action.ref, tree=tree)
        return self._made(known.file, place, depth)

    def _made(self, file: ActionFile, place: Place, depth: int) -> Use:
        self._opened += 1
        if self._opened > _MOST_OPENED:
            raise ActionError(f"the job uses actions more than {_MOST_OPENED} times, counting those within actions")
        match file.runs:
            case JavaScriptRuns() as runs:
                return JavaScriptUse(file=file, runs=runs, place=place)
            case CompositeRuns() as runs:
                if depth >= MAX_DEPTH:
                    raise ActionError(f"Composite action depth exceeded max depth {MAX_DEPTH}")
                if self._steps + len(runs.steps) > _MOST_STEPS:
                    raise ActionError(f"the composite actions of the job have more than {_MOST_STEPS} steps")
                self._steps += len(runs.steps)
                entries = entries_of(runs.steps)
                self.open_known(entries, depth + 1)
                return CompositeUse(file=file, runs=runs, place=place, entries=entries)
            case DockerRuns():
                raise ActionError(
                    f"cannot run '{file.path}': Docker actions are not supported yet",
                    hint="Composite and JavaScript actions are.",
                )

    async def find_node(self, entries: Iterable[Entry], sources: Path) -> Path | None:
        """Node.js, if a step will run in it, as far as that can be told before there is a machine: then one that has it can be chosen. Actions of
        the workspace are looked for in `sources`, from where they will probably come."""
        if not await self._runs_javascript(entries, sources, set()):
            return None
        try:
            return await self._source.node(self._log.node)
        except ActionError:
            return None  # the step that needs it, if there is one, will say so

    async def _runs_javascript(self, entries: Iterable[Entry], sources: Path, seen: set[str]) -> bool:
        for entry in entries:
            match entry.use:
                case JavaScriptUse():
                    return True
                case CompositeUse(entries=own):
                    if await self._runs_javascript(own, sources, seen):
                        return True
                case None if entry.step.uses is not None and entry.step.uses not in seen:
                    seen.add(entry.step.uses)
                    if await self._may_run_javascript(entry.step.uses, sources, seen):
                        return True
                case _:
                    pass
        return False

    async def _may_run_javascript(self, uses: str, sources: Path, seen: set[str]) -> bool:
        action = _parsed(uses)
        if isinstance(action, RemoteAction):
            return not _is_native(action)
        try:
            file = await read_from_tree(sources, str(action), called=str(action))
        except ActionError:
            return False
        if isinstance(file.runs, CompositeRuns):
            return len(seen) < _MOST_FETCHED and await self._runs_javascript(entries_of(file.runs.steps), sources, seen)
        return isinstance(file.runs, JavaScriptRuns)

    # --- what is in the machine ---

    async def place(self, place: Place, guest: Guest, *, node: bool = False) -> None:
        """The files of the repository an action belongs to, into the machine; with `node` the program JavaScript actions run in, too.

        Raises ActionError, AgentError, TreeError."""
        if place.tree and place.tree not in self._placed:
            tree = self._trees[place.tree]
            repository, _, ref = place.tree.partition("@")
            await guest.upload(tree.root, posixpath.join(ACTIONS, repository, ref), uid=0, gid=0)
            self._placed.add(place.tree)
        if node and EXTERNALS not in self._placed:
            await self._place_node(guest)

    async def _place_node(self, guest: Guest) -> None:
        """A machine may have it: its template was made with it, or its image is."""
        if not await guest.files.exists(f"{EXTERNALS}/bin/node"):
            await guest.upload(await self._source.node(self._log.node), EXTERNALS, uid=0, gid=0)
        self._placed.add(EXTERNALS)


def _parsed(uses: str) -> RemoteAction | LocalAction | DockerImage:
    try:
        return parse_uses(uses)
    except UsesError as error:
        raise ActionError(str(error)) from error


def _remote(steps: Iterable[Step]) -> Iterable[RemoteAction]:
    """The actions these steps take from other repositories, without those the node does itself."""
    for step in steps:
        action = _parsed(step.uses) if step.uses is not None else None
        if isinstance(action, RemoteAction) and not _is_native(action):
            yield action


def _is_native(action: RemoteAction) -> bool:
    return not action.path and action.repository.lower() in NATIVE
