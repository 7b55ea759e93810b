"""What the steps of one job share: its machine, its log, and what each leaves for the next."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from firebrick.node.artifact import ArtifactShelf
from firebrick.node.cancel import Cancellation
from firebrick.node.event import CancelCause
from firebrick.node.glob import find_files, parse_searches
from firebrick.node.guest import Guest
from firebrick.node.log import JobLog
from firebrick.node.order import RunOrder
from firebrick.node.settings import NodeSettings
from firebrick.node.source import SourceReader
from firebrick.workflow.context import GuestPaths, env_context, job_context
from firebrick.workflow.expression import Scope, Value
from firebrick.workflow.hashing import HashMemo, HashNeededError, combine
from firebrick.workflow.outcome import CANCELLED, FAILURE, SUCCESS, StepOutcome, step_scope, steps_context
from firebrick.workflow.syntax import RunDefaults

if TYPE_CHECKING:
    from firebrick.node.keeper import Keeper

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a step, whole: what it takes to run it again. `text` is its script as it was written."""

    argv: tuple[str, ...]
    directory: str
    env: Mapping[str, str]
    text: str = ""


@dataclass(kw_only=True)
class Bench:
    """One job at work. `env` is what workflow and job set (`given`) and `GITHUB_ENV` changed, `path` what `GITHUB_PATH` added, `scope` what the
    job's own expressions see, `runner` the context of that name, `step_end` what ends the step that runs now, `command` what it runs or ran last."""

    order: RunOrder
    job_id: str
    paths: GuestPaths
    guest: Guest
    log: JobLog
    source: SourceReader
    shelf: ArtifactShelf
    settings: NodeSettings
    cancellation: Cancellation
    scope: Scope
    defaults: RunDefaults
    runner: Mapping[str, Value]
    keeper: Keeper
    env: dict[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    command: Command | None = None
    path: tuple[str, ...] = ()
    outcomes: dict[str, StepOutcome] = field(default_factory=dict)
    failed: bool = False
    step_end: asyncio.Event = field(default_factory=asyncio.Event)
    _hashes: HashMemo = field(default_factory=HashMemo)

    @property
    def status(self) -> str:
        """Of the job so far: what `success()`, `failure()` and `cancelled()` ask."""
        if self.cancellation.cause is not None:
            return CANCELLED
        return FAILURE if self.failed else SUCCESS

    @property
    def conclusion(self) -> str:
        """What the job ends with. Time that ran out is a failure."""
        if self.cancellation.cause is CancelCause.TIMEOUT:
            return FAILURE
        return self.status

    def record(self, step_id: str, outcome: StepOutcome) -> None:
        """Keep how a step ended, for the steps after it."""
        if step_id:
            self.outcomes[step_id] = outcome
        self.failed |= outcome.conclusion == FAILURE

    async def evaluate(self, ask: Callable[[Scope], T], env: Mapping[str, str] | None = None) -> T:
        """`ask` with the scope of a step; `env` is added to what expressions see as `env`. Raises EvaluationError."""
        scope = self._scope({**self.env, **(env or {})})
        while True:
            try:
                return ask(scope)
            except HashNeededError as needed:
                self._hashes.answer(needed.patterns, await self._hash(needed.patterns))

    def _scope(self, env: Mapping[str, str]) -> Scope:
        contexts: dict[str, Value] = {
            "env": env_context(env),
            "steps": steps_context(self.outcomes),
            "job": job_context(self.status),
            "runner": self.runner,
            "secrets": dict(self.order.secrets),
        }
        return step_scope(self.scope, status=self.status, contexts=contexts).with_functions(hashFiles=self._hashes)

    async def _hash(self, patterns: tuple[str, ...]) -> str:
        workspace = self.paths.workspace
        found = await find_files(self.guest.files, parse_searches(patterns, workspace))
        inside = sorted(file.path for file in found if file.path.startswith(f"{workspace}/"))
        return combine([await self._digest(path) for path in inside])

    async def _digest(self, path: str) -> str:
        digest = hashlib.sha256()
        async with aclosing(self.guest.files.stream(path)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
        return digest.hexdigest()
