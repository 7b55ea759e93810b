"""Files out of guests into the artifact directory of a run. Names and sizes come from the guest and are taken as hostile."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import posixpath
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from firebrick.guest.client import Files
from firebrick.node.earlier import EarlierFile
from firebrick.node.errors import StepError
from firebrick.node.event import ArtifactStored
from firebrick.node.glob import Found
from firebrick.node.log import Emit
from firebrick.node.results.archive import DEEPEST, Member, Unpacked, read_members, unpack
from firebrick.spool import Spool
from firebrick.text import encodable

_FORBIDDEN: Final = re.compile(r'[\x00-\x1f"*/:<>?\\|]')
_NAME_BYTES: Final = 200
_MOST_FILES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Stored:
    """What a step has stored by a name, and the directory that holds it. `version` is another each time."""

    job: str
    name: str
    directory: Path
    version: int


class ArtifactShelf:
    """The artifacts of one run: a directory each, `<directory>/<name>/...`, of plain files. `limit` bounds the bytes of all together,
    `most_files` the number of files and of the directories they are in: an empty one takes room on the host as well.

    What is collected of a job is named after the job, and must not be in the way of an artifact a workflow gives that name: whichever comes
    second has `-2` added to its directory."""

    def __init__(self, directory: Path, emit: Emit, *, limit: int, most_files: int = _MOST_FILES) -> None:
        self._directory = directory
        self._emit = emit
        self._left = limit
        self._limit = limit
        self._files_left = most_files
        self._most_files = most_files
        self._names: dict[str, str] = {}  # of what workflows have stored, with its directory
        self._taken: set[str] = set()
        self._versions = itertools.count(1)
        self._stored: dict[str, Stored] = {}  # by steps, not by clients of the artifact service

    @property
    def names(self) -> Mapping[str, Path]:
        """The artifacts that workflows have stored, and the directory each is in."""
        return {name: self._directory / directory for name, directory in self._names.items()}

    async def store(
        self, job: str, name: str, files: Files, found: Sequence[Found], *, root: str, overwrite: bool = False
    ) -> int:
        """Store the files, each under its path relative to `root`, and return how many bytes that were.

        Raises StepError for a bad or taken name and where a limit is reached; what was stored until then stays."""
        self._check_name(name, overwrite=overwrite)
        if name not in self._names:
            self._names[name] = self._take(name)
        size = await self._store(job, name, self._names[name], files, found, root)
        self._stored[name] = Stored(job, name, self._directory / self._names[name], next(self._versions))
        return size

    def stored(self) -> list[Stored]:
        """What steps have stored by a name."""
        return list(self._stored.values())

    async def unpack(self, job: str, name: str, content: Path, *, archive: bool) -> None:
        """Store what a client has uploaded: the files in a zip archive, or the one file it is.

        Raises StepError as `store` does, and for an archive that is broken; then nothing of it stays."""
        self._check_name(name, overwrite=False)
        members = await asyncio.to_thread(read_members, content) if archive else [Member(name, content.stat().st_size)]
        self._check_name(name, overwrite=False)  # again: that took a while
        self._count([member.path for member in members], name)
        self._spend(sum(member.size for member in members), name)
        self._names[name] = directory = self._take(name)
        target = self._directory / directory
        try:
            found = await asyncio.to_thread(_unpack if archive else _copy, content, target, members)
        except BaseException:
            await self.remove(name)
            raise
        for file in found:
            path = f"{directory}/{file.path}"
            event = ArtifactStored(at=time.time(), job=job, name=name, path=path, size=file.size, sha256=file.sha256)
            self._emit(event)

    async def remove(self, name: str) -> None:
        """Forget an artifact and what is stored of it; its name is free again. Idempotent."""
        self._stored.pop(name, None)
        directory = self._names.pop(name, None)
        if directory is not None:
            await asyncio.to_thread(shutil.rmtree, self._directory / directory, ignore_errors=True)
            self._taken.discard(directory)

    async def collect(self, job: str, files: Files, found: Sequence[Found], *, root: str) -> int:
        """Store what is left of a job, which needs no name of its own. As `store`, but no name is refused."""
        wanted = _FORBIDDEN.sub("_", encodable(job)).encode()[:_NAME_BYTES].decode(errors="ignore")
        return await self._store(job, job, self._take(wanted), files, found, root)

    async def adopt(self, files: Sequence[EarlierFile], directory: Path) -> None:
        """Have what a job of an earlier attempt has stored, which is below `directory`, as if it had just done so.

        Raises StepError where a limit is reached, OSError where a file is gone."""
        for file in files:
            own = file.path.partition("/")[0]
            self._count([file.path], file.name)
            self._spend(file.size, file.name)
            await asyncio.to_thread(_link, directory / file.path, self._directory / file.path)
            if file.name not in self._stored:
                self._taken.add(own)
                self._names[file.name] = own
                self._stored[file.name] = Stored(file.job, file.name, self._directory / own, next(self._versions))
            event = ArtifactStored(
                at=time.time(), job=file.job, name=file.name, path=file.path, size=file.size, sha256=file.sha256
            )
            self._emit(event)

    def _take(self, name: str) -> str:
        """A directory nobody has: the name, or it with a number."""
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        free = next(each for each in itertools.chain([name], numbered) if each not in self._taken)
        self._taken.add(free)
        return free

    async def _store(self, job: str, name: str, directory: str, files: Files, found: Sequence[Found], root: str) -> int:
        paths = [posixpath.relpath(file.path, root) for file in found]
        self._count(paths, name)
        total = 0
        for file, path in zip(found, paths, strict=True):
            total += await self._fetch(job, name, files, file.path, posixpath.join(directory, path))
        return total

    def _check_name(self, name: str, *, overwrite: bool) -> None:
        if not name or name in (".", "..") or _FORBIDDEN.search(name) or len(os.fsencode(name)) > _NAME_BYTES:
            raise StepError(
                f"{name!r} cannot be the name of an artifact", hint='It may not be empty or hold " : < > | * ? / \\.'
            )
        if name in self._names and not overwrite:
            raise StepError(
                f"an artifact with the name {name!r} is already there",
                hint="Give each its own name, or set `overwrite: true`.",
            )

    async def _fetch(self, job: str, name: str, files: Files, source: str, relative: str) -> int:
        target = self._directory / relative
        if ".." in Path(relative).parts or len(os.fsencode(relative)) > 4000 or relative.count("/") > DEEPEST:
            raise StepError(f"cannot store {source!r}: its path cannot be kept")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        size, digest = await self._write(files, source, target)
        self._emit(ArtifactStored(at=time.time(), job=job, name=name, path=_text(relative), size=size, sha256=digest))
        return size

    async def _write(self, files: Files, source: str, target: Path) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with FileIO(fd, "wb") as out:
            spool = Spool(out, digest)
            async with aclosing(files.stream(source)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    self._spend(len(chunk), source)
                    await spool.write(chunk)
            await spool.flush()
        return size, digest.hexdigest()

    def _count(self, paths: Sequence[str], name: str) -> None:
        entries = _entries(paths, self._files_left)
        if entries > self._files_left:
            raise StepError(
                f"cannot store {name!r}: the artifacts of this run are more than {self._most_files} files and directories",
                hint="Store fewer, or pack them into one.",
            )
        self._files_left -= entries

    def _spend(self, count: int, source: str) -> None:
        self._left -= count
        if self._left < 0:
            raise StepError(
                f"cannot store {source!r}: the artifacts of this run are more than {self._limit >> 20} MiB",
                hint="Store less, or raise `artifact_limit_mib` in the [node] table of config.toml.",
            )


def _entries(paths: Sequence[str], most: int) -> int:
    """How many files and directories these paths are; where that is more than `most`, some number that is."""
    above: set[int] = set()  # hashes: the paths themselves may be long
    for path in paths:
        directory = path.rpartition("/")[0]
        while directory and (known := hash(directory)) not in above:
            above.add(known)
            directory = directory.rpartition("/")[0]
        if len(above) > most:
            break
    return len(paths) + len(above)


def _text(path: str) -> str:
    """Names of guests need not be text; events are."""
    return os.fsencode(path).decode(errors="replace")


def _unpack(content: Path, target: Path, members: Sequence[Member]) -> list[Unpacked]:
    _empty(target)
    return unpack(content, target, members)


def _copy(content: Path, target: Path, members: Sequence[Member]) -> list[Unpacked]:
    _empty(target)
    place = target / members[0].path
    shutil.copyfile(content, place)
    with place.open("rb") as file:
        return [Unpacked(members[0].path, members[0].size, hashlib.file_digest(file, "sha256").hexdigest())]


def _link(source: Path, target: Path) -> None:
    """The same file twice: what is stored is never written to again, only replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target, follow_symlinks=False)


def _empty(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
