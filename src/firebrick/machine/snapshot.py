"""A snapshot: a directory that holds everything a machine can be restored from, and `snapshot.json`, which says what it is.

    snapshot.json   this record
    state           the devices, some kilobytes
    memory          sparse; machines map it copy-on-write
    memory.ranges   of a difference: what of `memory` counts; the rest is that of the base
    scratch.*       the layers of the disk

(Drivers may have other files than `state` and `scratch.*`.) The directory appears whole or not at all, and nothing in it ever changes, but for
`differences`, where those that build on it are noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from firebrick import tree
from firebrick.home import Home
from firebrick.machine import chain, manifest, trust, use
from firebrick.machine.drafts import draft_name, sweep_drafts
from firebrick.machine.errors import SnapshotError
from firebrick.machine.manifest import FILE, VERSION, Base, Manifest, Part, Root
from firebrick.machine.network.policy import Forward
from firebrick.machine.spec import MachineSpec

_DIFFERENCES = "differences"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A machine at one instant, in the directory `path`. `facts` are what the driver says it depends on; `created` is since 1970; `digest` is
    that of its record; `base` is what it is a difference to, None where it is full."""

    path: Path
    id: str
    created: float
    driver: str
    facts: Mapping[str, str]
    spec: MachineSpec
    root: Root | None
    files: Mapping[str, Part]
    digest: str
    base: Snapshot | None

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read a snapshot, and those it builds on, and see that they are whole: that every file is there and has its size. Contents are read
        when it is restored. Raises SnapshotError, in a sentence that says what does not fit."""
        return _load(path, chain.LONGEST)

    @property
    def chain(self) -> list[Snapshot]:
        """The snapshot, what it builds on, and so on: the last is full."""
        return [self, *(self.base.chain if self.base is not None else [])]

    @property
    def size(self) -> int:
        """Bytes its files take on disk; layers it shares with others are counted in full, what it builds on is not."""
        return sum(file.stat().st_blocks * 512 for file in self.path.iterdir())

    def check(self, now: Mapping[str, str]) -> None:
        """See that the driver finds what it had when the snapshot was taken, and that the root image is the same: all that differs is said
        at once. Raises SnapshotError."""
        wrong = [*_differences(self.facts, now), *_root_difference(self)]
        if wrong:
            raise SnapshotError(
                f"cannot restore {self.path}: {'; '.join(wrong)}",
                hint="Take the snapshot anew on this host, or restore it on one like that.",
            )

    async def flatten(self, target: Path, *, home: Path | None = None) -> Snapshot:
        """Make the new directory `target` a full snapshot of the same instant, which needs no other. What this one builds on may go then.

        Raises SnapshotError."""
        cache = (home or Home.find().root) / "cache"
        return await asyncio.to_thread(self._flatten, target, cache)

    def remove(self) -> None:
        """Remove it. Machines that run from it have names of their own for its files. Raises SnapshotError while others build on it, and while it
        is in use: while a machine is being started from it, say."""
        with use.alone(self.path):
            for other in self._needed_by():
                raise SnapshotError(
                    f"cannot remove {self.path}: {other} is a difference to it",
                    hint="Remove that one first, or make it a full one with `flatten`.",
                )
            gone = self.path.rename(self.path.with_name(draft_name(self.path.name)))
        tree.remove(gone)

    def with_forwards(self, forwards: Iterable[Forward]) -> Snapshot:
        """The same to be restored with these ports of the host, and no others. Raises SpecError where a machine of it has no network of its own."""
        return replace(self, spec=self.spec.with_forwards(forwards))

    def used(self) -> AbstractContextManager[None]:
        """It, and what it builds on, is not removed as long as the context. Raises SnapshotError where somebody is about to."""
        return use.shared([link.path for link in self.chain])

    def make_whole(self, target: Path) -> None:
        """Fill the empty directory `target` with what a driver restores from: as if this were full. Blocks while it copies."""
        chain.share_rest(self.path, self.files, target)
        chain.flatten([link.path for link in reversed(self.chain)], target / chain.MEMORY)

    def _flatten(self, target: Path, cache: Path) -> Snapshot:
        with self.used(), drafted(target) as draft:
            trust.verify(self, cache)
            self.make_whole(draft.path)
            draft.keep(self.spec, self.driver, self.facts, created=self.created, cache=cache)
        return Snapshot.load(target)

    def _needed_by(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / _DIFFERENCES).read_text().splitlines():
                with contextlib.suppress(SnapshotError):
                    record, _ = manifest.read(Path(line))
                    if record.base is not None and record.base.id == self.id:
                        yield Path(line)


@dataclass(frozen=True, slots=True)
class Draft:
    """A directory to fill, which `keep` makes the snapshot `target`."""

    path: Path
    target: Path

    def keep(
        self,
        spec: MachineSpec,
        driver: str,
        facts: Mapping[str, str],
        *,
        base: Snapshot | None = None,
        created: float | None = None,
        digested: bool = True,
        cache: Path | None = None,
    ) -> None:
        """Write the record and put the directory in its place. Blocks while digests are made, where they are: without, the snapshot is only good
        for who takes it, at once. In `cache`, where one is given, it is noted that this host need not verify it. Raises SnapshotError when
        something is at the target already that is not an empty directory."""
        if base is not None:
            chain.note_ranges(self.path)
        files = {file.name: Part.of(file, digested=digested) for file in sorted(self.path.iterdir())}
        record = Manifest(
            version=VERSION,
            id=secrets.token_hex(8),
            created=created or time.time(),
            driver=driver,
            facts=facts,
            spec=spec,
            root=Root.of(spec.root) if spec.root is not None else None,
            base=_base_of(base, self.target) if base is not None else None,
            files=files,
        )
        manifest.write(self.path, record)
        self._put()
        if base is not None:
            _note_difference(base.path, self.target)
        if cache is not None:
            trust.trust(Snapshot.load(self.target), cache)

    def _put(self) -> None:
        try:
            self.path.rename(self.target)
        except OSError as error:
            raise SnapshotError(
                f"cannot keep the snapshot as {self.target}: {error.strerror}",
                hint="Name a directory that does not exist yet.",
            ) from error


@contextmanager
def drafted(target: Path) -> Iterator[Draft]:
    """A directory to fill, gone at the end unless it was kept. What a killed process has left beside it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_drafts(target.parent)
    path = target.with_name(draft_name(target.name))
    path.mkdir(mode=0o700)
    try:
        yield Draft(path, target.absolute())
    except BaseException:
        if not path.exists():  # it is in its place already, and was not to be
            shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _base_of(base: Snapshot, difference: Path) -> Base:
    return Base(os.path.relpath(base.path, difference), base.id, base.digest)


def _note_difference(base: Path, difference: Path) -> None:
    """What cannot be noted is found out when the difference is loaded."""
    with contextlib.suppress(OSError), (base / _DIFFERENCES).open("a") as file:
        file.write(f"{difference}\n")


def _load(path: Path, longest: int) -> Snapshot:
    record, digest = manifest.read(path)
    for name, part in record.files.items():
        _check_part(path / name, part)
    return Snapshot(
        path=path,
        id=record.id,
        created=record.created,
        driver=record.driver,
        facts=record.facts,
        spec=record.spec,
        root=record.root,
        files=record.files,
        digest=digest,
        base=_load_base(path, record.base, longest - 1) if record.base is not None else None,
    )


def _load_base(path: Path, base: Base, longest: int) -> Snapshot:
    where = Path(os.path.normpath(path.absolute() / base.path))
    if longest < 1:
        raise SnapshotError(
            f"cannot restore {path}: more than {chain.LONGEST} snapshots build on each other",
            hint="Make one of them a full one with `flatten`.",
        )
    if not (where / FILE).exists():
        raise SnapshotError(
            f"cannot restore {path}: it is a difference to the snapshot {where}, which is gone",
            hint="Bring that directory back. `Snapshot.remove` refuses while others build on one; `flatten` makes them independent.",
        )
    found = _load(where, longest)
    if (found.id, found.digest) != (base.id, base.digest):
        raise SnapshotError(
            f"cannot restore {path}: {where} is not the snapshot it is a difference to, but another",
            hint="Bring the one it was taken against back.",
        )
    return found


def _check_part(file: Path, part: Part) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise SnapshotError(
            f"cannot restore {file.parent}: {file.name}: {error.strerror}", hint="Take the snapshot anew."
        ) from error
    if size != part.size:
        raise SnapshotError(
            f"cannot restore {file.parent}: {file.name} was changed or cut short", hint="Take the snapshot anew."
        )


def _differences(had: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    names = [name for name in sorted(had.keys() | now.keys()) if had.get(name) != now.get(name)]
    if names:
        then, here = (" and ".join(_fact(name, facts) for name in names) for facts in (had, now))
        yield f"it was taken with {then}, and this host has {here}"


def _fact(name: str, facts: Mapping[str, str]) -> str:
    return f"{name} {facts[name]}" if name in facts else f"no {name}"


def _root_difference(snapshot: Snapshot) -> Iterator[str]:
    root = snapshot.spec.root
    if root is None:
        return
    try:
        if Root.of(root) != snapshot.root:
            yield f"its root image {root} was changed since"
    except OSError as error:
        yield f"its root image {root}: {error.strerror}"
