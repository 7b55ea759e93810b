"""Attempts that follow each other, what an event has started, environments that hold jobs, schedules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("parked", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("builds", sa.Column("origin", sa.String(64), nullable=False, server_default=""))
    op.add_column("builds", sa.Column("run_attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("builds", sa.Column("ref", sa.Text(), nullable=False, server_default=""))
    op.add_column("builds", sa.Column("verdicts", sa.JSON()))
    op.execute("UPDATE builds SET origin = id")
    op.create_index("builds_by_origin", "builds", ["origin", "run_attempt"], unique=True)
    op.create_table(
        "gates",
        sa.Column("build", sa.String(64), primary_key=True),
        sa.Column("environment", sa.String(255), primary_key=True),
        sa.Column("waits", sa.Boolean(), nullable=False),
        sa.Column("asked_us", sa.BigInteger(), nullable=False),
        sa.Column("approved", sa.Boolean()),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("decided_us", sa.BigInteger()),
    )
    op.create_table(
        "schedules",
        sa.Column("repository", sa.String(512), primary_key=True),
        sa.Column("workflow", sa.String(512), primary_key=True),
        sa.Column("cron", sa.String(256), primary_key=True),
        sa.Column("zone", sa.String(64), primary_key=True),
        sa.Column("branch", sa.String(255), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=False),
    )
    op.create_index("schedules_by_time", "schedules", ["due_us"])


def downgrade() -> None:
    op.drop_table("schedules")
    op.drop_table("gates")
    op.drop_index("builds_by_origin", "builds")
    for name in ("verdicts", "ref", "run_attempt", "origin", "parked"):
        op.drop_column("builds", name)
