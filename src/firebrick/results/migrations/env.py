"""Alembic's way in: runs the migrations on the connection it was given by `firebrick.database`."""

from __future__ import annotations

from alembic import context

from firebrick.results.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
