"""Blobs, uploads, artifacts, cache entries."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _number() -> sa.Column[Any]:
    return sa.Column(
        "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    )


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _digest() -> sa.Column[Any]:
    return sa.Column("sha256", sa.String(64), nullable=False)


def upgrade() -> None:
    op.create_table("blobs", sa.Column("sha256", sa.String(64), primary_key=True), *_numbers("size"))
    op.create_table(
        "uploads",
        _number(),
        *_texts("tenant", "run", "job"),
        sa.Column("kind", sa.String(16), nullable=False),
        *_texts("name", "mime", "scope", "version"),
        *_numbers("expires_us", "created_us"),
        sa.Column("committed", sa.Text()),
        sa.Column("sha256", sa.String(64)),
        sa.Column("size", sa.BigInteger()),
        sqlite_autoincrement=True,
    )
    op.create_index("uploads_by_run", "uploads", ["tenant", "run", "kind", "name"])
    op.create_table(
        "artifacts",
        _number(),
        *_texts("tenant", "run", "job", "name", "mime"),
        _digest(),
        *_numbers("size", "created_us", "expires_us"),
        sa.UniqueConstraint("tenant", "run", "name", name="one_artifact_a_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])
    op.create_index("ix_artifacts_expires_us", "artifacts", ["expires_us"])
    op.create_table(
        "cache_entries",
        _number(),
        *_texts("tenant", "scope", "key", "folded", "version"),
        _digest(),
        *_numbers("size", "created_us", "used_us"),
        sa.UniqueConstraint("tenant", "scope", "version", "folded", name="one_entry_a_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cache_entries_sha256", "cache_entries", ["sha256"])


def downgrade() -> None:
    for table in ("cache_entries", "artifacts", "uploads", "blobs"):
        op.drop_table(table)
