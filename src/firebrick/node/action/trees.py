"""The trees of other repositories that are kept on this host, by commit: held while they are used, and no more of them than may be.

<owner>/<name>/<commit>/      a tree, whole from the moment it has this name
               <commit>.size  what it takes, in bytes
=gone/...                     what is being removed ('=' is in no name of an owner)
=lock                         held by who makes room

Who uses a tree has its directory open, with a lock on it that any number may share; who removes one locks it alone. Both belong to open files, so they
end with the process, however that does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.lock import hold_lock, try_lock
from firebrick.node.action.source import ActionTree
from firebrick.node.errors import ActionError
from firebrick.tree import measure
from firebrick.tree import remove as remove_tree

_KEPT_S: Final = 30 * 24 * 3600.0
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    used: float
    size: int


class Trees:
    """All below `root`, together at most `limit` bytes, whichever process keeps them there."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit

    def find(self, path: Path, held: ExitStack) -> ActionTree | None:
        """The tree at `path`, which stays until `held` is left; None where there is none, or it is just being removed."""
        try:
            fd = os.open(path, _DIRECTORY)
        except OSError:
            return None
        if not _locked(fd, fcntl.LOCK_SH) or not _is_at(fd, path):
            os.close(fd)
            return None
        held.callback(os.close, fd)
        with contextlib.suppress(OSError):
            os.utime(fd)  # it was used
        return ActionTree(path, path.name)

    async def add(self, draft: Path, path: Path, held: ExitStack) -> ActionTree:
        """Keep a tree that was made at `draft` at `path`; those that were not used for longest go for it. It stays until `held` is left.

        Raises ActionError where those that are used leave no room."""
        size = (await asyncio.to_thread(measure, draft)).disk_bytes
        async with hold_lock(self._root / "=lock"):
            if not await asyncio.to_thread(self._make_room, size):
                raise ActionError(
                    f"cannot keep the repository of an action: it has {size >> 20} MiB, and with those that jobs use now there would be "
                    f"more than {self._limit >> 20} MiB",
                    hint="`actions_cache_mib` in the [node] table of config.toml bounds them together.",
                )
            path.with_name(f"{path.name}.size").write_text(str(size))
            draft.rename(path)
            tree = self.find(path, held)
        assert tree is not None  # nobody removes one without the lock
        return tree

    async def sweep(self) -> None:
        """Remove what nobody has used for a month, and what processes that died have left of their removals; nothing where another
        process makes room."""
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        if not self._root.is_dir():
            return
        with try_lock(self._root / "=lock") as free:
            if free:
                remove_tree(self._root / "=gone")
                old = time.time() - _KEPT_S
                for kept in self._all():
                    if kept.used < old:
                        self._remove(kept)

    def _make_room(self, size: int) -> bool:
        trees = sorted(self._all(), key=lambda kept: kept.used)
        total = size + sum(kept.size for kept in trees)
        for kept in trees:
            if total <= self._limit:
                break
            if self._remove(kept):
                total -= kept.size
        return total <= self._limit

    def _all(self) -> Iterator[_Kept]:
        for path in self._root.glob("*/*/*"):
            if path.parts[-3].startswith("=") or path.name.startswith(".") or not path.is_dir():
                continue
            with contextlib.suppress(OSError):
                yield _Kept(path, path.stat().st_mtime, _size(path))

    def _remove(self, kept: _Kept) -> bool:
        """Whether nobody uses it, and it is gone."""
        try:
            fd = os.open(kept.path, _DIRECTORY)
        except OSError:
            return False
        try:
            if not _locked(fd, fcntl.LOCK_EX):
                return False
            gone = self._root / "=gone" / secrets.token_hex(8)
            gone.parent.mkdir(mode=0o700, exist_ok=True)
            kept.path.rename(gone)
        finally:
            os.close(fd)
        kept.path.with_name(f"{kept.path.name}.size").unlink(missing_ok=True)
        remove_tree(gone)
        return True


def _locked(fd: int, how: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        return True
    return False


def _is_at(fd: int, path: Path) -> bool:
    """Whether the directory `fd` still goes by this name."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _size(path: Path) -> int:
    """As it was measured once; a tree without that is measured."""
    noted = path.with_name(f"{path.name}.size")
    with contextlib.suppress(OSError, ValueError):
        return int(noted.read_text())
    size = measure(path).disk_bytes
    noted.write_text(str(size))
    return size
