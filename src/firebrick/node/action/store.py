"""Actions of other repositories on this host: where they come from, and the trees that are kept, by commit.

cache/actions/<owner>/<name>/<commit>/    a tree, see `firebrick.node.action.trees`; a commit is the same wherever it came from
                             .lock        held by who fetches from this repository
                             .draft-...   what is being fetched; what a killed process left there, the next one removes

git runs here as for any repository nobody trusts (`firebrick.forge.git`): no hook, no filter, nothing is checked out but files.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from firebrick.forge.address import Address
from firebrick.forge.clone import clone
from firebrick.forge.errors import CloneLimitError, ForgeError, RefError, RefNotFoundError
from firebrick.forge.limits import CloneLimits
from firebrick.forge.resolve import resolve_ref
from firebrick.lock import hold_lock, try_lock
from firebrick.node.action.externals import Externals
from firebrick.node.action.source import ActionTree
from firebrick.node.action.trees import Trees
from firebrick.node.errors import ActionError, OriginError
from firebrick.node.guest import Say
from firebrick.node.origin import find_origin
from firebrick.node.settings import NodeSettings
from firebrick.task import shielded
from firebrick.tree import remove as remove_tree
from firebrick.workflow.uses import RemoteAction

_AT_ONCE: Final = 8
"""Repositories on their way at once: nothing bounds them together before they are here."""


class ActionStore:
    """An `ActionSource` over the home's `cache`, shared by every process that uses it."""

    def __init__(self, cache: Path, settings: NodeSettings) -> None:
        self._cache = cache / "actions"
        self._externals = Externals(cache / "externals")
        self._settings = settings
        self._trees = Trees(self._cache, settings.actions_cache_mib << 20)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._limits = CloneLimits(size_mib=settings.actions_limit_mib)

    async def node(self, say: Say) -> Path:
        """See `ActionSource.node`."""
        return await self._externals.node(say)

    async def fetch(self, action: RemoteAction, say: Say, held: ExitStack) -> ActionTree:
        """See `ActionSource.fetch`. A commit that is kept already is not asked for again, a branch or a tag is, each time."""
        shelf = self._cache / action.owner / action.name
        kept = self._trees.find(shelf / action.ref.lower(), held) if action.is_pinned else None
        if kept is not None:
            return kept
        address = self._address(action)
        try:
            return await self._fetch(action, address, shelf, say, held)
        except ForgeError as error:
            raise ActionError(f"cannot get the action {str(action)!r}: {error}", hint=_hint(error, address)) from error
        except OSError as error:
            raise ActionError(f"cannot keep the action {str(action)!r}: {error}") from error

    async def sweep(self) -> None:
        """Remove trees nobody has used for a month, and what processes that died have left; what another one works on is left alone."""
        await asyncio.to_thread(self._sweep)
        await self._trees.sweep()

    def _sweep(self) -> None:
        for lock in self._cache.glob("*/*/.lock"):
            with contextlib.suppress(OSError), try_lock(lock) as free:
                if free:
                    _forget_drafts(lock.parent)

    def _address(self, action: RemoteAction) -> Address:
        """Raises ActionError."""
        try:
            return find_origin(action.repository, self._settings)
        except OriginError as error:
            raise ActionError(f"cannot get the action {str(action)!r}: {error}", hint=error.hint) from error

    async def _fetch(
        self, action: RemoteAction, address: Address, shelf: Path, say: Say, held: ExitStack
    ) -> ActionTree:
        shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
        waiting = f"Another process fetches {action.repository}."
        async with hold_lock(shelf / ".lock", waiting=lambda: say(waiting)):
            await asyncio.to_thread(_forget_drafts, shelf)
            commit = action.ref.lower()
            if not action.is_pinned:
                commit = await resolve_ref(address, action.ref, scratch=shelf / f".draft-{secrets.token_hex(4)}")
            if (kept := self._trees.find(shelf / commit, held)) is not None:
                return kept
            async with self._turns:
                return await self._clone(action, commit, address, shelf, held)

    async def _clone(
        self, action: RemoteAction, commit: str, address: Address, shelf: Path, held: ExitStack
    ) -> ActionTree:
        draft = shelf / f".draft-{secrets.token_hex(4)}"
        try:
            branch = "" if action.is_pinned else action.ref
            checkout = await clone(address, draft, branch=branch, commit=commit, limits=self._limits)
            await asyncio.to_thread(remove_tree, draft / ".git")
            # It may be there: it may have been asked for by the name of a tag that is an object of its own.
            path = shelf / checkout.sha
            return self._trees.find(path, held) or await self._trees.add(draft, path, held)
        except RefNotFoundError as error:
            raise RefNotFoundError(f"{address.url} has no commit {commit}") from error
        finally:
            await shielded(asyncio.to_thread(remove_tree, draft))


def _hint(error: ForgeError, address: Address) -> str:
    if isinstance(error, CloneLimitError):
        return "`actions_limit_mib` in the [node] table of config.toml bounds what is fetched."
    if isinstance(error, RefNotFoundError | RefError):
        return "Check what stands behind the `@`."
    if address.scheme == "file":
        return f"{address.path} has to be a bare repository that belongs to the user of this node."
    return "Check `actions_url` in the [node] table of config.toml, or keep a mirror: `actions`."


def _forget_drafts(shelf: Path) -> None:
    """Of processes that died: the lock is held, so nobody makes one."""
    for entry in shelf.glob(".draft-*"):
        remove_tree(entry)
