"""A snapshot: a directory that holds everything a machine can be restored from, and `snapshot.json`, which says what it is.

    snapshot.json   this record
    state           the devices, some kilobytes
    memory          sparse; machines map it copy-on-write
    scratch.*       the layers of the disk

(The fake driver keeps its file tree instead of the last three.) The directory appears whole or not at all, and nothing in it ever changes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from firebrick.machine.errors import SnapshotError
from firebrick.machine.spec import MachineSpec

FILE = "snapshot.json"
VERSION = 1
_HASHED_BELOW = 1 << 20


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the snapshot. Large ones are known by their size alone: hashing a memory would take longer than taking it."""

    size: int
    sha256: str | None = None


class Root(msgspec.Struct, frozen=True):
    """The root image the machine had: the memory holds parts of it, so it must be the same still."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Root:
        facts = path.stat()
        return cls(facts.st_size, facts.st_mtime_ns)


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    id: str
    created: float
    driver: str
    facts: Mapping[str, str]
    spec: MachineSpec
    root: Root | None
    files: Mapping[str, Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A machine at one instant, in the directory `path`. `facts` are what the driver says it depends on; `created` is since 1970."""

    path: Path
    id: str
    created: float
    driver: str
    facts: Mapping[str, str]
    spec: MachineSpec

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read a snapshot and see that it is whole. Raises SnapshotError, in a sentence that says what does not fit."""
        manifest = _read(path)
        if manifest.version != VERSION:
            raise SnapshotError(
                f"cannot restore {path}: it is of version {manifest.version}, this release reads version {VERSION}",
                hint="Take the snapshot anew.",
            )
        for name, part in manifest.files.items():
            _check_part(path / name, part)
        _check_root(path, manifest)
        return cls(
            path=path,
            id=manifest.id,
            created=manifest.created,
            driver=manifest.driver,
            facts=manifest.facts,
            spec=manifest.spec,
        )

    @property
    def size(self) -> int:
        """Bytes its files take on disk; layers it shares with others are counted in full."""
        return sum(file.stat().st_blocks * 512 for file in self.path.iterdir())

    def check_facts(self, now: Mapping[str, str]) -> None:
        """See that the driver finds what it had when the snapshot was taken. Raises SnapshotError."""
        for name in sorted(self.facts.keys() | now.keys()):
            had, has = self.facts.get(name, "nothing"), now.get(name, "nothing")
            if had != has:
                raise SnapshotError(
                    f"cannot restore {self.path}: it was taken with {name} {had}, and this is {has}",
                    hint="Take the snapshot anew on this host.",
                )


@contextmanager
def created(path: Path, spec: MachineSpec, driver: str, facts: Mapping[str, str]) -> Iterator[Path]:
    """A directory to fill, which becomes the snapshot `path` at the end, or nothing if this is left by an exception.

    Raises SnapshotError when something is at `path` already that is not an empty directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700)
    try:
        yield draft
        manifest = _Manifest(
            version=VERSION,
            id=secrets.token_hex(8),
            created=time.time(),
            driver=driver,
            facts=facts,
            spec=spec,
            root=Root.of(spec.root) if spec.root is not None else None,
            files={file.name: _part(file) for file in sorted(draft.iterdir())},
        )
        (draft / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest, enc_hook=_encode), indent=1))
        _put(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, path: Path) -> None:
    try:
        draft.rename(path)
    except OSError as error:
        raise SnapshotError(
            f"cannot keep the snapshot as {path}: {error.strerror}", hint="Name a directory that does not exist yet."
        ) from error


def _read(path: Path) -> _Manifest:
    try:
        return msgspec.json.decode((path / FILE).read_bytes(), type=_Manifest, dec_hook=_decode)
    except FileNotFoundError as error:
        raise SnapshotError(
            f"cannot restore {path}: no snapshot is there", hint=f"A snapshot is a directory with {FILE} in it."
        ) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise SnapshotError(
            f"cannot restore {path}: {FILE} is damaged: {error}", hint="Take the snapshot anew."
        ) from error


def _part(file: Path) -> Part:
    size = file.stat().st_size
    return Part(size, hashlib.sha256(file.read_bytes()).hexdigest() if size < _HASHED_BELOW else None)


def _check_part(file: Path, part: Part) -> None:
    try:
        size = file.stat().st_size
        same = size == part.size and (
            part.sha256 is None or hashlib.sha256(file.read_bytes()).hexdigest() == part.sha256
        )
    except OSError as error:
        raise SnapshotError(
            f"cannot restore {file.parent}: {file.name}: {error.strerror}", hint="Take the snapshot anew."
        ) from error
    if not same:
        raise SnapshotError(
            f"cannot restore {file.parent}: {file.name} was changed or cut short", hint="Take the snapshot anew."
        )


def _check_root(path: Path, manifest: _Manifest) -> None:
    root = manifest.spec.root
    if root is None:
        return
    try:
        same = Root.of(root) == manifest.root
    except OSError as error:
        raise SnapshotError(
            f"cannot restore {path}: its root image {root}: {error.strerror}",
            hint="Bring the image back, or take the snapshot anew.",
        ) from error
    if not same:
        raise SnapshotError(f"cannot restore {path}: its root image {root} was changed", hint="Take the snapshot anew.")


def _encode(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


def _decode(kind: type, value: Any) -> Any:
    if kind is Path or issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"no JSON for {kind.__name__}")
