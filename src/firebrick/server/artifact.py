"""What a build leaves behind: files below its artifact directory, and `manifest.json`, which names each with its size and sha256.

Only what the manifest names is served, so whatever else a job may have brought into the directory (links, pipes) is never reached.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from firebrick.confined import open_beneath
from firebrick.server.whole import write_whole
from firebrick.text import encodable, is_encodable

_MOST_FILES: Final = 10_000
_CHUNK: Final = 1 << 20


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `path` is relative to the artifact directory; `name` and `job` say whose it is, where that is known."""

    path: str
    size: int
    sha256: str
    name: str = ""
    job: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`."""

    build_id: str
    repo_url: str
    branch: str
    commit: str
    created_at: str
    total_size: int
    artifacts: tuple[Artifact, ...]


class Gathered(NamedTuple):
    """`left_out` says in words which files are there and not among the artifacts, and why."""

    artifacts: tuple[Artifact, ...]
    left_out: str = ""


def gather(directory: Path, owners: Mapping[str, tuple[str, str]]) -> Gathered:
    """Every regular file below `directory`, by path, read and hashed. `owners` maps paths to artifact name and job.

    At most 10,000 files; those whose path is no UTF-8, which no manifest can say and no address name, are left out."""
    paths = _paths(directory)
    nameable = [path for path in paths if is_encodable(path)]
    artifacts = tuple(_read(directory, path, owners.get(path, ("", ""))) for path in nameable[:_MOST_FILES])
    return Gathered(artifacts, "; ".join(_left_out(paths, nameable)))


def _left_out(paths: list[str], nameable: list[str]) -> Iterator[str]:
    if unnameable := len(paths) - len(nameable):
        first = next(path for path in paths if not is_encodable(path))
        yield f"files left out because their path is not UTF-8: {unnameable}, the first is {encodable(first)!r}"
    if len(nameable) > _MOST_FILES:
        yield f"files left out because there are more than {_MOST_FILES}: {len(nameable) - _MOST_FILES}"


def _paths(directory: Path) -> list[str]:
    found: list[str] = []
    for parent, directories, files in os.walk(directory):
        directories.sort()
        relative = Path(parent).relative_to(directory)
        found += [(relative / name).as_posix() for name in sorted(files) if _is_plain(Path(parent, name))]
    return found


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read(directory: Path, path: str, owner: tuple[str, str]) -> Artifact:
    digest, size = hashlib.sha256(), 0
    with open_beneath(directory, path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Artifact(path=path, size=size, sha256=digest.hexdigest(), name=owner[0], job=owner[1])


def encode_manifest(manifest: Manifest) -> bytes:
    """The text of `manifest.json`."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write it whole or not at all."""
    write_whole(path, encode_manifest(manifest))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest, or None where there is none yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
