"""The actions of one job: what its steps use, how much that may be, and what of it is in the machine.

prepare(steps)         before there is a machine: fetch what they name, and what composite actions among it name
find_node(entries)     which Node.js the machine should have, if any
open_known(entries)    the actions as the steps use them, with the steps they have themselves
open_local(path)       one of the workspace, when its turn has come
place(place)           an action's files into the machine, once
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from firebrick.node.action.definition import docker_file, read_from_guest
from firebrick.node.action.fetched import FetchedActions, Known, parsed_uses, tree_of
from firebrick.node.action.native import NATIVE, is_native
from firebrick.node.action.need import runs_javascript
from firebrick.node.action.source import ActionSource
from firebrick.node.action.use import CompositeUse, DockerUse, Entry, JavaScriptUse, Place, Use, entries_of
from firebrick.node.context import ACTIONS, EXTERNALS
from firebrick.node.errors import ActionError
from firebrick.node.guest import Guest
from firebrick.node.log import JobLog
from firebrick.node.settings import NodeSettings
from firebrick.workflow.action_file import ActionFile, CompositeRuns, DockerRuns, JavaScriptRuns
from firebrick.workflow.syntax import Step
from firebrick.workflow.uses import DockerImage, LocalAction, RemoteAction

MAX_DEPTH: Final = 9
"""Composite actions within one another."""
_MOST_OPENED: Final = 1000
_MOST_STEPS: Final = 10_000


class JobActions:
    """See above. Steps that run at once ask for one thing after the other. What it fetches stays until `held` is left."""

    def __init__(self, source: ActionSource, settings: NodeSettings, log: JobLog, held: ExitStack) -> None:
        self._source = source
        self._log = log
        self._fetched = FetchedActions(source, settings, log, held)
        self._placed: set[str] = set()
        self._turn = asyncio.Lock()
        self._opened = 0
        self._steps = 0

    # --- what a job uses ---

    async def prepare(self, steps: Iterable[Step]) -> None:
        """Fetch every action of another repository that these steps use, and those that these use. Raises ActionError."""
        await self._fetched.prepare(steps)

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
        async with self._turn:
            if isinstance(file.runs, CompositeRuns):
                await self.prepare(file.runs.steps)
            return self._made(file, Place(path=folder), depth)

    def _open(self, uses: str, depth: int) -> Use | None:
        match parsed_uses(uses):
            case RemoteAction() as action if is_native(action):
                return NATIVE[action.repository.lower()]
            case RemoteAction() as action:
                return self._made_known(self._fetched.known[str(action)], depth)
            case DockerImage():
                return self._made(docker_file(uses, uses), Place(path=""), depth)
            case LocalAction():
                return None

    def _made_known(self, known: Known, depth: int) -> Use:
        action = known.action
        path = posixpath.join(ACTIONS, action.repository, action.ref, action.path).rstrip("/")
        place = Place(path=path, repository=action.repository, ref=action.ref, tree=tree_of(action))
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
            case DockerRuns() as runs:
                return DockerUse(file=file, runs=runs, place=place)

    async def find_node(self, entries: Iterable[Entry], sources: Path) -> Path | None:
        """Node.js, if a step will probably run in it: then a machine that has it can be chosen. `sources` is where the workspace comes from."""
        if not await runs_javascript(entries, sources):
            return None
        try:
            return await self._source.node(self._log.node)
        except ActionError:
            return None  # the step that needs it, if there is one, will say so

    def repository_of(self, place: Place) -> tuple[Path, str] | None:
        """The tree on this host an action is from, and its folder there; None for one of the workspace."""
        if not place.tree:
            return None
        repository, _, ref = place.tree.partition("@")
        return self._fetched.trees[place.tree].root, posixpath.relpath(
            place.path, posixpath.join(ACTIONS, repository, ref)
        )

    # --- what is in the machine ---

    async def place(self, place: Place, guest: Guest, *, node: bool = False) -> None:
        """The files of the repository an action belongs to, into the machine; with `node` the program JavaScript actions run in, too.

        Raises ActionError, AgentError, TreeError."""
        async with self._turn:
            if place.tree and place.tree not in self._placed:
                tree = self._fetched.trees[place.tree]
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
