"""What is kept, by its digest: `<directory>/<two digits>/<sha256>`, each content once, whoever keeps it.

Several processes share the directory, and each may be killed at any moment. What counts is the database, whose transactions let one process write at
a time: a file comes to its place and goes from it only inside of one. A file without a row is what a killed process left, and is removed by the next
`sweep`; the file is on the disk before its row is, so only a row that nothing refers to any more may have lost its file.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from firebrick.results.schema import artifacts, blobs, entries, uploads

_AT_ONCE: Final = 200


class BlobStore:
    """Calls with a connection belong inside a transaction. Contents are referred to by artifacts, cache entries and committed uploads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, sha256: str) -> Path:
        return self._directory / sha256[:2] / sha256

    def keep(self, connection: Connection, file: Path, sha256: str, size: int) -> None:
        """Take over a file whose content is on the disk. Where the content is kept already, the file takes its place: it is the same."""
        target = self.path(sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self._directory)
        file.replace(target)
        _sync(target.parent)
        connection.execute(insert(blobs).values(sha256=sha256, size=size).on_conflict_do_nothing())

    def drop_unused(self, connection: Connection) -> bool:
        """Remove some of what nothing refers to any more. True where there may be more of it: the lock shall not be held for long."""
        return self._drop(connection, _unused().limit(_AT_ONCE)) == _AT_ONCE

    def drop_forgotten(self, connection: Connection, digests: Collection[str]) -> None:
        """Remove those of these that nothing refers to any more. In a transaction after the one that forgot them: a file does not come back."""
        each = sorted(digests)
        for start in range(0, len(each), _AT_ONCE):
            self._drop(connection, _unused().where(blobs.c.sha256.in_(each[start : start + _AT_ONCE])))

    def _drop(self, connection: Connection, query: sa.Select[Any]) -> int:
        unused: list[str] = list(connection.scalars(query))
        for sha256 in unused:
            self.path(sha256).unlink(missing_ok=True)
        connection.execute(blobs.delete().where(blobs.c.sha256.in_(unused)))
        return len(unused)

    def drop_strays(self, connection: Connection) -> None:
        """Remove files that no row knows: a process was killed between the two."""
        known = set(connection.scalars(sa.select(blobs.c.sha256)))
        for file in self._directory.glob("??/*"):
            if file.name not in known:
                file.unlink(missing_ok=True)


def _unused() -> sa.Select[Any]:
    columns = (artifacts.c.sha256, entries.c.sha256, uploads.c.sha256)
    used = sa.or_(*(sa.exists().where(column == blobs.c.sha256) for column in columns))
    return sa.select(blobs.c.sha256).where(~used)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
