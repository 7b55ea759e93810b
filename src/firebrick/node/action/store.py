"""Actions of other repositories on this host: where they come from, and the trees that are kept, by commit.

cache/actions/<owner>/<name>/<commit>/    a tree, whole from the moment it has this name; a commit is the same wherever it came from
                             .lock        held by who fetches from this repository
                             .draft-...   what is being fetched; what a killed process left there, the next one removes

git runs here as for any repository nobody trusts (`firebrick.forge.git`): no hook, no filter, nothing is checked out but files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from firebrick.forge.address import Address
from firebrick.forge.clone import clone
from firebrick.forge.errors import CloneLimitError, ForgeError, RefError, RefNotFoundError
from firebrick.forge.limits import CloneLimits
from firebrick.forge.resolve import resolve_ref
from firebrick.image.lock import hold_lock, try_lock
from firebrick.node.action.externals import Externals
from firebrick.node.action.source import ActionTree
from firebrick.node.errors import ActionError, OriginError
from firebrick.node.guest import Say
from firebrick.node.origin import find_origin
from firebrick.node.settings import NodeSettings
from firebrick.task import shielded
from firebrick.tree import remove as remove_tree
from firebrick.workflow.uses import RemoteAction

_KEPT_S: Final = 30 * 24 * 3600.0


class ActionStore:
    """An `ActionSource` over the home's `cache`, shared by every process that uses it."""

    def __init__(self, cache: Path, settings: NodeSettings) -> None:
        self._cache = cache / "actions"
        self._externals = Externals(cache / "externals")
        self._settings = settings
        self._limits = CloneLimits(size_mib=settings.actions_limit_mib)

    async def node(self, say: Say) -> Path:
        """See `ActionSource.node`."""
        return await self._externals.node(say)

    async def fetch(self, action: RemoteAction, say: Say) -> ActionTree:
        """See `ActionSource.fetch`. A commit that is kept already is not asked for again, a branch or a tag is, each time."""
        shelf = self._cache / action.owner / action.name
        kept = self._find(shelf, action.ref.lower()) if action.is_pinned else None
        if kept is not None:
            return kept
        address = self._address(action)
        try:
            return await self._fetch(action, address, shelf, say)
        except ForgeError as error:
            raise ActionError(f"cannot get the action {str(action)!r}: {error}", hint=_hint(error, address)) from error
        except OSError as error:
            raise ActionError(f"cannot keep the action {str(action)!r}: {error}") from error

    async def sweep(self) -> None:
        """Remove trees nobody has used for a month, and what processes that died have left; what another one works on is left alone."""
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        for shelf in self._cache.glob("*/*"):
            with contextlib.suppress(OSError), try_lock(shelf / ".lock") as free:
                if free:
                    _forget(shelf)

    def _address(self, action: RemoteAction) -> Address:
        """Raises ActionError."""
        try:
            return find_origin(action.repository, self._settings)
        except OriginError as error:
            raise ActionError(f"cannot get the action {str(action)!r}: {error}", hint=error.hint) from error

    async def _fetch(self, action: RemoteAction, address: Address, shelf: Path, say: Say) -> ActionTree:
        shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
        waiting = f"Another process fetches {action.repository}."
        async with hold_lock(shelf / ".lock", waiting=lambda: say(waiting)):
            await asyncio.to_thread(_forget, shelf)
            commit = action.ref.lower()
            if not action.is_pinned:
                commit = await resolve_ref(address, action.ref, scratch=shelf / f".draft-{secrets.token_hex(4)}")
            return self._find(shelf, commit) or await self._clone(action, commit, address, shelf)

    async def _clone(self, action: RemoteAction, commit: str, address: Address, shelf: Path) -> ActionTree:
        draft = shelf / f".draft-{secrets.token_hex(4)}"
        try:
            branch = "" if action.is_pinned else action.ref
            checkout = await clone(address, draft, branch=branch, commit=commit, limits=self._limits)
            await asyncio.to_thread(remove_tree, draft / ".git")
            tree = self._find(
                shelf, checkout.sha
            )  # it may have been asked for by the name of a tag that is an object of its own
            if tree is None:
                draft.rename(shelf / checkout.sha)
        except RefNotFoundError as error:
            raise RefNotFoundError(f"{address.url} has no commit {commit}") from error
        finally:
            await shielded(asyncio.to_thread(remove_tree, draft))
        return tree or ActionTree(shelf / checkout.sha, checkout.sha)

    def _find(self, shelf: Path, commit: str) -> ActionTree | None:
        tree = shelf / commit
        if not tree.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(tree)  # it was used
        return ActionTree(tree, commit)


def _hint(error: ForgeError, address: Address) -> str:
    if isinstance(error, CloneLimitError):
        return "`actions_limit_mib` in the [node] table of config.toml bounds what is fetched."
    if isinstance(error, RefNotFoundError | RefError):
        return "Check what stands behind the `@`."
    if address.scheme == "file":
        return f"{address.path} has to be a bare repository that belongs to the user of this node."
    return "Check `actions_url` in the [node] table of config.toml, or keep a mirror: `actions`."


def _forget(shelf: Path) -> None:
    """Drafts of processes that died (the lock is held, so nobody makes one), and trees nobody has used for a month."""
    for entry in shelf.iterdir():
        with contextlib.suppress(OSError):
            is_old = entry.is_dir() and time.time() - entry.stat().st_mtime > _KEPT_S
            if is_old or entry.name.startswith(".draft-"):
                remove_tree(entry)
