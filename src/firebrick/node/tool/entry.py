"""What is written down of tools: a small file each, which appears whole or not at all, and whose time says when it was used last.

    entries/<whose>/<name>.json    a tool of a ref of a repository, or of an administrator, and the digest of its tree
    jobs/<whose>/<name>.json       what a job of a ref of a repository used

`<whose>` and `<name>` are digests: what they are made of comes from repositories.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from firebrick.machine.drafts import draft_name
from firebrick.node.tool.limits import MOST_USED, MOST_VERSIONS
from firebrick.node.tool.name import ToolName
from firebrick.node.tool.scope import JobScope
from firebrick.results.scope import PULL

VERSION: Final = 1
_MOST_BYTES: Final = 1 << 16
_PATH_BYTES: Final = 4096
_T = TypeVar("_T", bound=msgspec.Struct)


class ToolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`scope` is the ref; it, `tenant` and `repository` are empty for what an administrator has added. `paths` counts files, directories and links. `at` is
    seconds since 1970."""

    version: int
    tenant: str
    repository: str
    scope: str
    path: str
    sha256: str
    size: int
    paths: int = 1
    at: float

    @property
    def disk_bytes(self) -> int:
        """What it takes of a disk: a file takes some of that even where it is empty."""
        return self.size + self.paths * _PATH_BYTES


class UsedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of tools that a job has used, the last used ones first."""

    version: int
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """A record, where it is, and when it was used last, in seconds since 1970."""

    record: ToolRecord
    name: ToolName
    file: Path
    used: float

    @property
    def is_seed(self) -> bool:
        """Whether an administrator has added it."""
        return not self.record.tenant

    @property
    def is_proposed(self) -> bool:
        """Whether a pull request has."""
        return self.record.scope.startswith(PULL)


def entry_file(root: Path, tenant: str, scope: str, name: ToolName) -> Path:
    return folder_of(root, tenant) / f"{_digest(scope, name.path)}.json"


def folder_of(root: Path, tenant: str) -> Path:
    """Where the entries of a tenant are; those of an administrator for ""."""
    return root / "entries" / _digest(tenant)


def used_file(root: Path, job: JobScope, scope: str) -> Path:
    return root / "jobs" / _digest(job.tenant) / f"{_digest(scope, job.workflow, job.job)}.json"


def _digest(*parts: str) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def entries_in(folder: Path) -> Iterator[ToolEntry]:
    """All that can be read, in no order."""
    for file in folder.glob("[!.]*.json"):
        record = read(file, ToolRecord)
        name = ToolName.from_path(record.path) if record is not None and record.version == VERSION else None
        if record is not None and name is not None:
            with contextlib.suppress(OSError):
                yield ToolEntry(record, name, file, file.stat().st_mtime)


def read_used(file: Path) -> UsedRecord | None:
    record = read(file, UsedRecord)
    return record if record is not None and record.version == VERSION else None


def read(file: Path, kind: type[_T]) -> _T | None:
    """None for what is not there, or is none."""
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(_MOST_BYTES), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def write(file: Path, record: msgspec.Struct) -> None:
    """In place of what was there, in one step. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(draft_name(file.name))
    try:
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def remembered(before: Iterable[str], used: Iterable[ToolName]) -> tuple[str, ...]:
    """What a job used, `used` and then what it had used before, of each tool the last few."""
    paths = dict.fromkeys([*(name.path for name in used), *before])
    counts: dict[str, int] = {}
    kept = []
    for path in paths:
        tool = path.partition("/")[0]
        counts[tool] = counts.get(tool, 0) + 1
        if counts[tool] <= MOST_VERSIONS:
            kept.append(path)
    return tuple(kept[:MOST_USED])
