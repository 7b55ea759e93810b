"""What the steps of one job share: its machine, its log, and what each leaves for the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from firebrick.node.artifact import ArtifactShelf
from firebrick.node.cancel import Cancellation
from firebrick.node.context import Place
from firebrick.node.event import CancelCause
from firebrick.node.glob import find_files, parse_patterns
from firebrick.node.guest import Guest
from firebrick.node.log import JobLog
from firebrick.node.order import RunOrder
from firebrick.node.settings import NodeSettings
from firebrick.node.source import SourceReader
from firebrick.workflow.expression import ExactMap, Scope, Value, to_text
from firebrick.workflow.outcome import CANCELLED, FAILURE, SUCCESS, StepOutcome, step_scope, steps_context
from firebrick.workflow.syntax import RunDefaults

T = TypeVar("T")


class _HashWantedError(Exception):
    """An expression asked for `hashFiles`, whose answer is in the guest: it is fetched, and the expression evaluated again."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__(patterns)
        self.patterns = patterns


@dataclass(kw_only=True)
class Bench:
    """One job at work. `variables` are the defaults of every step, `env` what workflow and job set and `GITHUB_ENV` changed, `path` what
    `GITHUB_PATH` added, `scope` what the job's own expressions see."""

    order: RunOrder
    place: Place
    guest: Guest
    log: JobLog
    source: SourceReader
    shelf: ArtifactShelf
    settings: NodeSettings
    cancellation: Cancellation
    scope: Scope
    defaults: RunDefaults
    runner: Mapping[str, Value]
    variables: Mapping[str, str]
    env: dict[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    outcomes: dict[str, StepOutcome] = field(default_factory=dict)
    failed: bool = False
    _hashes: dict[tuple[str, ...], str] = field(default_factory=dict)

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
            except _HashWantedError as wanted:
                self._hashes[wanted.patterns] = await self._hash(wanted.patterns)

    def _scope(self, env: Mapping[str, str]) -> Scope:
        contexts: dict[str, Value] = {
            "env": ExactMap(env),
            "steps": steps_context(self.outcomes),
            "job": {"status": self.status},
            "runner": self.runner,
            "secrets": dict(self.order.secrets),
        }
        scope = step_scope(self.scope, status=self.status, contexts=contexts)
        return scope.with_functions(hashFiles=self._hash_files)

    def _hash_files(self, arguments: Sequence[Value]) -> Value:
        patterns = tuple(to_text(argument) for argument in arguments)
        if patterns not in self._hashes:
            raise _HashWantedError(patterns)
        return self._hashes[patterns]

    async def _hash(self, patterns: tuple[str, ...]) -> str:
        """SHA-256 over the binary SHA-256 of each file below the workspace that matches; empty where none does."""
        inside = f"{self.place.workspace}/"
        found = await find_files(self.guest.files, parse_patterns("\n".join(patterns), self.place.workspace))
        digests = [await self._digest(file.path) for file in found if file.path.startswith(inside)]
        return hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""

    async def _digest(self, path: str) -> bytes:
        digest = hashlib.sha256()
        async with aclosing(self.guest.files.stream(path)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
        return digest.digest()
