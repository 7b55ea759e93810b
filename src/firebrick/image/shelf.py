"""What the store is built on: directories named by the digest of what is in them, and names that point at them.

    <root>/objects/<digest>/    finished and never changed again; manifest.json says what it is
    <root>/names/<name>         symbolic link to an object
    <root>/staging/<token>/     being made; <token>.lock is held by who makes it
    <root>/locks/               one per name, held while that name is being made

An object appears by a rename, complete, or not at all. Staging whose lock is free belongs to a process that died; the next sweep removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from firebrick.image.errors import DamagedError
from firebrick.image.sandbox import remove_tree
from firebrick.lock import hold_lock, try_lock
from firebrick.task import shielded

_MANIFEST: Final = "manifest.json"

M = TypeVar("M", bound=msgspec.Struct)


class Shelf(Generic[M]):
    """Objects of one kind below `root`, each with a manifest of type `manifest_type`. Any number of processes may use one at once."""

    def __init__(self, root: Path, manifest_type: type[M]) -> None:
        self.root = root
        self._type = manifest_type

    def lock(self, name: str, *, waiting: Callable[[], None] | None = None) -> AbstractAsyncContextManager[None]:
        """Hold while making what `name` shall point at."""
        return hold_lock(self._lock(name), waiting=waiting)

    def forget_lock(self, name: str) -> None:
        """The file of the lock goes. For whoever holds it, as the last it does, of a name that means nothing."""
        self._lock(name).unlink(missing_ok=True)

    def _lock(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    def object(self, digest: str) -> Path:
        return self.root / "objects" / digest

    def names(self) -> dict[str, str]:
        """Every name and the digest it points at."""
        links = (self.root / "names").glob("*") if (self.root / "names").is_dir() else ()
        return {link.name: link.readlink().name for link in sorted(links) if link.is_symlink()}

    def digests(self) -> list[str]:
        directory = self.root / "objects"
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def find(self, name: str) -> str | None:
        """The digest `name` points at, or None, also where the object is gone."""
        try:
            digest = (self.root / "names" / name).readlink().name
        except OSError:
            return None
        return digest if (self.object(digest) / _MANIFEST).is_file() else None

    def manifest(self, digest: str) -> M:
        file = self.object(digest) / _MANIFEST
        try:
            return msgspec.json.decode(file.read_bytes(), type=self._type)
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedError(
                f"cannot read {file}: {error}", hint=f"Remove {file.parent} and make it again."
            ) from error

    def manifests(self) -> Iterator[tuple[str, M]]:
        for digest in self.digests():
            yield digest, self.manifest(digest)

    @asynccontextmanager
    async def staged(self) -> AsyncIterator[Path]:
        """A fresh directory to make an object in. What has not been published when the context is left is removed."""
        await self.sweep()
        with contextlib.ExitStack() as stack:
            while True:
                token = self.root / "staging" / secrets.token_hex(8)
                lock = token.with_name(token.name + ".lock")
                # A sweep of another process may take, and remove, a lock file in the moment before it is locked.
                if stack.enter_context(try_lock(lock)) and lock.exists():
                    break
            token.mkdir()
            try:
                yield token
            finally:
                await shielded(remove_tree(token))
                lock.unlink(missing_ok=True)

    def publish(self, staging: Path, digest: str, manifest: M) -> None:
        """Make the finished directory `staging` the object `digest`. Where that exists already only the manifest is
        replaced: what is in it has the same digest."""
        file = staging / _MANIFEST
        file.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        for path in staging.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
                _sync(path)
        target = self.object(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            file.rename(target / _MANIFEST)
        _sync(target.parent)

    def point(self, name: str, digest: str) -> None:
        """Let `name` mean this object, from one moment to the next."""
        directory = self.root / "names"
        directory.mkdir(parents=True, exist_ok=True)
        fresh = directory / f".{name}.{secrets.token_hex(4)}"
        fresh.symlink_to(Path("..") / "objects" / digest)
        fresh.rename(directory / name)

    def use(self, name: str) -> None:
        """Note that `name` was wanted just now."""
        with contextlib.suppress(OSError):  # it may be forgotten in this moment
            os.utime(self.root / "names" / name, follow_symlinks=False)

    def last_use(self, name: str) -> float:
        """When it was, or when it began to mean what it means, in seconds since 1970; 0 for a name nobody has."""
        try:
            return (self.root / "names" / name).lstat().st_mtime
        except OSError:
            return 0.0

    def unpoint(self, name: str) -> None:
        (self.root / "names" / name).unlink(missing_ok=True)

    def remove(self, digest: str) -> None:
        """Remove an object. Its manifest goes first: a half removed object is none."""
        directory = self.object(digest)
        (directory / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)

    async def sweep(self) -> int:
        """Remove what processes that died have left in staging. Returns how many such directories there were."""
        locks = sorted((self.root / "staging").glob("*.lock"))
        swept = 0
        for lock in locks:
            with try_lock(lock) as free:
                if free:
                    await remove_tree(lock.with_name(lock.name.removesuffix(".lock")))
                    lock.unlink(missing_ok=True)
                    swept += 1
        return swept


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
