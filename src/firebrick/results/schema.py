"""The tables, as the newest migration leaves them."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata: Final = MetaData()


def _number() -> Column[int]:
    # SQLite counts up by itself only in a column that is exactly INTEGER PRIMARY KEY.
    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _content() -> tuple[Column[Any], ...]:
    return (
        Column("sha256", String(64), nullable=False, index=True),
        Column("size", BigInteger, nullable=False),
        # Microseconds since 1970: the same in every database, and no time zone to lose.
        Column("created_us", BigInteger, nullable=False),
    )


blobs: Final = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
)

# A number is never used twice: an address that was signed for one upload is not good for another.
uploads: Final = Table(
    "uploads",
    metadata,
    _number(),
    Column("tenant", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("mime", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("committed", Text),
    Column("sha256", String(64)),
    Column("size", BigInteger),
    Index("uploads_by_run", "tenant", "run", "kind", "name"),
    sqlite_autoincrement=True,
)

artifacts: Final = Table(
    "artifacts",
    metadata,
    _number(),
    Column("tenant", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("mime", Text, nullable=False),
    *_content(),
    Column("expires_us", BigInteger, nullable=False, index=True),
    UniqueConstraint("tenant", "run", "name", name="one_artifact_a_name"),
    sqlite_autoincrement=True,
)

entries: Final = Table(
    "cache_entries",
    metadata,
    _number(),
    Column("tenant", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("folded", Text, nullable=False),
    Column("version", Text, nullable=False),
    *_content(),
    Column("used_us", BigInteger, nullable=False),
    UniqueConstraint("tenant", "scope", "version", "folded", name="one_entry_a_key"),
    sqlite_autoincrement=True,
)
