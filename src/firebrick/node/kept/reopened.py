"""A kept machine, opened again to look into it: where the step was, with what it had."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from firebrick.node.kept import checkpoint
from firebrick.node.kept.shelf import Entry
from firebrick.node.node import Node

STEP_VARIABLE: Final = "FIREBRICK_STEP"
"""In the environment of a shell: the path of a script that runs the step's command again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """`machine` is the id of the fork, which ends with the context it was made in; `environment` holds the secrets the step had."""

    machine: str
    milliseconds: float
    directory: str
    environment: Mapping[str, str] = field(repr=False)


@asynccontextmanager
async def reopened(node: Node, entry: Entry) -> AsyncIterator[Reopened]:
    """A fork of the kept machine. Raises NodeError, MachineError, GuestError."""
    record = entry.record
    async with node.reopen(entry, f"debug of {record.job} of {record.run}, {record.label}") as loan:
        state = await checkpoint.collect(loan.guest, record.state)
        await loan.guest.files.remove(checkpoint.STATE, missing_ok=True)
        environment = dict(state.environment)
        if record.argv:
            environment[STEP_VARIABLE] = checkpoint.STEP
        yield Reopened(
            machine=loan.machine,
            milliseconds=loan.start_ms,
            directory=state.directory,
            environment=environment,
        )
