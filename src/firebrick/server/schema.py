"""The tables, as the newest migration leaves them. What makes and changes them is in `migrations`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

builds: Final = Table(
    "builds",
    metadata,
    # SQLite counts up by itself only in a column that is exactly INTEGER PRIMARY KEY.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("state", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("repo_url", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("options", JSON, nullable=False),
    Column("message", Text, nullable=False),
    Column("conclusion", String(16)),
    Column("cancel", String(16)),
    Column("sha", String(64), nullable=False),
    Column("artifacts_count", Integer, nullable=False),
    # Microseconds since 1970: the same in every database, and no time zone to lose.
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    Index("builds_by_state", "state", "number"),
)
