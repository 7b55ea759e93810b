"""The tables, as the newest migration leaves them. What makes and changes them is in `migrations`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

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
    Column("parked", Integer, nullable=False, server_default="0"),
    Column("origin", String(64), nullable=False, server_default=""),
    Column("run_attempt", Integer, nullable=False, server_default="1"),
    Column("ref", Text, nullable=False, server_default=""),
    Column("verdicts", JSON),
    Index("builds_by_state", "state", "number"),
    Index("builds_by_origin", "origin", "run_attempt", unique=True),
)

gates: Final = Table(
    "gates",
    metadata,
    Column("build", String(64), primary_key=True),
    Column("environment", String(255), primary_key=True),
    Column("waits", Boolean, nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("approved", Boolean),
    Column("comment", Text, nullable=False),
    Column("decided_us", BigInteger),
)

schedules: Final = Table(
    "schedules",
    metadata,
    Column("repository", String(512), primary_key=True),
    Column("workflow", String(512), primary_key=True),
    Column("cron", String(256), primary_key=True),
    Column("zone", String(64), primary_key=True),
    Column("branch", String(255), nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Index("schedules_by_time", "due_us"),
)
