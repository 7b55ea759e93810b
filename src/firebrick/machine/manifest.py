"""`snapshot.json`: what a snapshot says of itself, as it is written and read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from firebrick.machine import digest
from firebrick.machine.errors import SnapshotError
from firebrick.machine.spec import MachineSpec

FILE: Final = "snapshot.json"
VERSION: Final = 2


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the snapshot. `digest` is that of `firebrick.machine.digest`; None where the snapshot is used up by those who took it."""

    size: int
    digest: str | None = None

    @classmethod
    def of(cls, file: Path, *, digested: bool) -> Part:
        return cls(file.stat().st_size, digest.of_file(file) if digested else None)


class Root(msgspec.Struct, frozen=True):
    """The root image the machine had: the memory holds parts of it, so it must be the same still."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Root:
        facts = path.stat()
        return cls(facts.st_size, facts.st_mtime_ns)


class Base(msgspec.Struct, frozen=True):
    """The snapshot a difference is to be laid over: where it is from here, its id, and the digest of its own record."""

    path: str
    id: str
    digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    id: str
    created: float
    driver: str
    facts: Mapping[str, str]
    spec: MachineSpec
    root: Root | None
    base: Base | None
    files: Mapping[str, Part]


class _Versioned(msgspec.Struct, frozen=True):
    version: int


def write(directory: Path, manifest: Manifest) -> None:
    (directory / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest, enc_hook=encode), indent=1))


def read(path: Path) -> tuple[Manifest, str]:
    """The record of the snapshot `path`, and its digest. Raises SnapshotError."""
    try:
        raw = (path / FILE).read_bytes()
        version = msgspec.json.decode(raw, type=_Versioned).version
        if version != VERSION:
            raise SnapshotError(
                f"cannot restore {path}: it is of version {version}, this release reads version {VERSION}",
                hint="Take the snapshot anew.",
            )
        manifest = msgspec.json.decode(raw, type=Manifest, dec_hook=decode)
        if strange := [name for name in manifest.files if not _is_plain(name)]:
            raise SnapshotError(f"cannot restore {path}: {FILE} names {strange[0]!r}, which is no file of a snapshot")
        return manifest, hashlib.sha256(raw).hexdigest()
    except FileNotFoundError as error:
        raise SnapshotError(
            f"cannot restore {path}: no snapshot is there", hint=f"A snapshot is a directory with {FILE} in it."
        ) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise SnapshotError(
            f"cannot restore {path}: {FILE} is damaged: {error}", hint="Take the snapshot anew."
        ) from error


def _is_plain(name: str) -> bool:
    """Names become paths, here and in the directory of each machine."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name


def encode(value: Any) -> Any:
    """For msgspec: paths are text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


def decode(kind: type, value: Any) -> Any:
    """The other way."""
    if kind is Path or issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"no JSON for {kind.__name__}")
