"""Environments that hold jobs of a build: since when, and what a person decided. Kept, so that neither is lost with the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from firebrick.database import Database
from firebrick.server.clock import from_us, to_us
from firebrick.server.schema import gates
from firebrick.workflow.expression.value import fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """An environment that jobs of a build have come to; it `waits` where the last attempt ended because of it. `approved` is None until somebody
    decides; once decided it stays so."""

    build: str
    environment: str
    waits: bool
    asked_at: datetime
    approved: bool | None = None
    comment: str = ""
    decided_at: datetime | None = None


class GateStore:
    """The gates of all builds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, build_id: str, environments: Iterable[str], at: datetime) -> None:
        """Jobs of the build wait for these environments, and for no others. When they came to one first counts."""
        wanted: dict[str, str] = {}
        for name in environments:
            wanted.setdefault(fold(name), name)

        def change(connection: Connection) -> None:
            for gate in _all(connection, build_id):
                waits = wanted.pop(fold(gate.environment), None) is not None
                connection.execute(gates.update().where(*_match(gate)).values(waits=waits))
            for name in wanted.values():
                values = {"build": build_id, "environment": name, "waits": True, "asked_us": to_us(at), "comment": ""}
                connection.execute(gates.insert().values(values))

        await self._database.transact(change)

    async def of(self, build_id: str) -> list[Gate]:
        """The gates of a build, by name."""
        return await self._database.transact(lambda connection: _all(connection, build_id))

    async def decide(self, build_id: str, name: str, *, approved: bool, comment: str, at: datetime) -> Gate | None:
        """Keep a decision on an environment, whose name has no case; the first one counts. None where no job of the build has come to it."""

        def change(connection: Connection) -> Gate | None:
            gate = _find(connection, build_id, name)
            if gate is None or gate.approved is not None:
                return gate
            values = {"approved": approved, "comment": comment, "decided_us": to_us(at)}
            connection.execute(gates.update().where(*_match(gate)).values(values))
            return _find(connection, build_id, name)

        return await self._database.transact(change)


def _all(connection: Connection, build_id: str) -> list[Gate]:
    query = sa.select(gates).where(gates.c.build == build_id).order_by(gates.c.environment)
    return [_gate(row) for row in connection.execute(query).mappings()]


def _find(connection: Connection, build_id: str, name: str) -> Gate | None:
    return next((gate for gate in _all(connection, build_id) if fold(gate.environment) == fold(name)), None)


def _match(gate: Gate) -> tuple[sa.ColumnElement[bool], ...]:
    return gates.c.build == gate.build, gates.c.environment == gate.environment


def _gate(row: RowMapping) -> Gate:
    return Gate(
        build=row["build"],
        environment=row["environment"],
        waits=row["waits"],
        asked_at=from_us(row["asked_us"]),
        approved=row["approved"],
        comment=row["comment"],
        decided_at=None if row["decided_us"] is None else from_us(row["decided_us"]),
    )
