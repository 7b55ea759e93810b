"""A database of ours: SQLite in a file, or any other SQLAlchemy speaks, by its URL. Opened, brought to its newest form, and used from threads,
so that the event loop is not held up: one for SQLite, where several would only wait for each other's lock, else a few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

T = TypeVar("T")


class Database:
    """Made by `open_database`. Any number of transactions may be asked for at once."""

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._threads = threads

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction of its own. Once begun it is finished, also when the caller is cancelled."""

        def transaction() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, transaction)


@asynccontextmanager
async def open_database(url: str, *, scripts: str, head: str) -> AsyncIterator[Database]:
    """Connect, migrate to the revision `head` with the Alembic scripts at `scripts` (`package:directory`), and let go of it at the end."""
    engine = _engine(url)
    threads = ThreadPoolExecutor(1 if engine.dialect.name == "sqlite" else 4, thread_name_prefix="store")
    try:
        await asyncio.get_running_loop().run_in_executor(threads, _migrate, engine, scripts, head)
        yield Database(engine, threads)
    finally:
        threads.shutdown()
        engine.dispose()


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url)
    engine = sa.create_engine(url, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def _tune(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, below
        # NORMAL: what is committed survives the death of the process, and the database survives that of the host.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could otherwise fail half-way: SQLite does not wait for a lock it must upgrade.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _migrate(engine: Engine, scripts: str, head: str) -> None:
    with engine.begin() as connection:
        if _revision(connection) == head:
            return
        # Imported here: a start on a database that is up to date does not need it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", scripts)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision
