"""What the steps of one job share: its machine, its log, and what each leaves for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from firebrick.node.action.book import JobActions
from firebrick.node.action.use import Entry, Place
from firebrick.node.cancel import Cancellation
from firebrick.node.container.companion import Companions
from firebrick.node.context import with_token
from firebrick.node.event import CancelCause
from firebrick.node.guest import Guest
from firebrick.node.log import JobLog
from firebrick.node.order import RunOrder
from firebrick.node.results.shelf import ArtifactShelf
from firebrick.node.settings import NodeSettings
from firebrick.node.source import SourceReader
from firebrick.node.step.deadline import Deadline
from firebrick.node.step.hashfiles import hash_files
from firebrick.workflow.command.file import FileCommandError
from firebrick.workflow.command.matcher import Matcher, MatcherSet
from firebrick.workflow.context import GuestPaths, env_context, job_context
from firebrick.workflow.expression.expression import EvaluationError, Scope, Value
from firebrick.workflow.hashing import HashMemo, HashNeededError
from firebrick.workflow.outcome import CANCELLED, FAILURE, SUCCESS, StepOutcome, step_scope, steps_context
from firebrick.workflow.syntax import RunDefaults
from firebrick.workflow.template import Condition

if TYPE_CHECKING:
    from firebrick.node.kept.keeper import Keeper
    from firebrick.node.step.background import Background

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a step, whole: what it takes to run it again. `text` is its script as it was written, empty for the program of an action."""

    argv: tuple[str, ...]
    directory: str
    env: Mapping[str, str]
    text: str = ""


@dataclass(slots=True)
class Variables:
    """What every step of a job begins with, those within actions too: `env` is what workflow and job set and `GITHUB_ENV` changed, `path` what
    `GITHUB_PATH` added; `given` what workflow and job set, as it was; `command` what the step runs or ran last, `matchers` the files
    that described problem matchers, by their owners in small letters; `spare` a directory of files for commands
    that no step has used; `new_env` and `new_path` are what was changed since these were made."""

    env: dict[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    command: Command | None = None
    matchers: dict[str, bytes] = field(default_factory=dict)
    spare: str = ""
    new_env: dict[str, str] = field(default_factory=dict)
    new_path: tuple[str, ...] = ()
    _added: dict[str, int] = field(default_factory=dict)
    _added_bytes: int = 0

    def copy(self) -> Variables:
        """For a step that runs beside others: what it changes is its own. Matchers are those of all."""
        env, added = dict(self.env), dict(self._added)
        return replace(
            self, env=env, command=None, spare="", new_env={}, new_path=(), _added=added, _added_bytes=self._added_bytes
        )

    def forget(self) -> None:
        """But what was changed."""
        self.env.clear()
        self._added.clear()

    def add(self, variables: Mapping[str, str], *, most: int) -> None:
        """Change `env`. Takes time with what is added alone: a step may add one variable a line. Raises FileCommandError, changing nothing, where
        all that was added is more than `most` bytes."""
        sizes = {name: len(name) + len(value) + 2 for name, value in variables.items()}
        total = self._added_bytes + sum(sizes.values()) - sum(self._added.get(name, 0) for name in sizes)
        if total > most:
            raise FileCommandError(f"The environment of the job has more than {most >> 10} KiB.")
        self.env.update(variables)
        self.new_env.update(variables)
        self._added.update(sizes)
        self._added_bytes = total


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The step that uses a composite action, as that action's own steps see it: what it gives them, and by when they must have ended. `depth`
    counts the composite actions around them."""

    bench: Bench
    place: Place
    env: Mapping[str, str]
    inputs: Mapping[str, str]
    deadline: Deadline | None
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a job before its first step: `scope` is what its own expressions see, `runner` the context of that name, `job` what the context
    `job` says of container and services, `image_env` what a container gives to every step."""

    scope: Scope
    runner: Mapping[str, Value] = field(default_factory=dict)
    job: Mapping[str, Value] = field(default_factory=dict)
    image_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """What actions are done with: the sources of the run, its artifacts, actions of other repositories, and more machines."""

    source: SourceReader
    shelf: ArtifactShelf
    actions: JobActions
    companions: Companions


@dataclass(kw_only=True)
class Bench:
    """One list of steps at work: a job's, or, with a `caller`, that of a composite action within it.

    `runtime` are the variables that actions have besides (never scripts), `action` is the GITHUB_ACTION of the step that runs now, `title` what people
    see of it, `step_end` what ends it if `condition` does not hold then; `entries` are the steps of the job, `posts` what has a post phase, in the
    order it began, `matchers` those the steps have added; `background` are the steps of the job that run in the background, once its steps have begun."""

    order: RunOrder
    job_id: str
    paths: GuestPaths
    guest: Guest
    log: JobLog
    settings: NodeSettings
    cancellation: Cancellation
    facts: Facts
    supplies: Supplies
    keeper: Keeper
    defaults: RunDefaults
    entries: tuple[Entry, ...] = ()
    runtime: Mapping[str, str] = field(default_factory=dict)
    caller: Caller | None = None
    variables: Variables = field(default_factory=Variables)
    action: str = ""
    title: str = ""
    posts: list[Entry] = field(default_factory=list)
    outcomes: dict[str, StepOutcome] = field(default_factory=dict)
    failed: bool = False
    step_end: asyncio.Event = field(default_factory=asyncio.Event)
    condition: Condition | None = None
    matchers: MatcherSet = field(default_factory=MatcherSet)
    background: Background | None = None
    _hashes: HashMemo = field(default_factory=HashMemo)

    def within(self, caller: Caller) -> Bench:
        """The bench of a composite action's own steps: they share the job's machine and variables, and know of no other steps."""
        return replace(self, caller=caller, defaults=RunDefaults(), action="", posts=[], outcomes={}, failed=False)

    def beside(self) -> Bench:
        """The bench of a step that will run in the background. Until it stands alone it is for looking at what there is. Its cancellation is to be
        closed."""
        return replace(self, cancellation=self.cancellation.part(), action="", title="")

    def stand_alone(self) -> None:
        """From now on it sees nothing of what others leave, and what it leaves is its own."""
        self.variables, self.outcomes = self.variables.copy(), dict(self.outcomes)

    def go_on_for(self, caller: Caller) -> None:
        """Another phase of the composite action begins: its steps are those of this step now."""
        self.caller, self.failed = caller, False
        self.variables, self.cancellation = caller.bench.variables, caller.bench.cancellation

    @property
    def env(self) -> dict[str, str]:
        return self.variables.env

    @env.setter
    def env(self, env: dict[str, str]) -> None:
        self.variables.env = env

    @property
    def path(self) -> tuple[str, ...]:
        return self.variables.path

    @path.setter
    def path(self, path: tuple[str, ...]) -> None:
        self.variables.path = path

    @property
    def depth(self) -> int:
        return self.caller.depth if self.caller is not None else 0

    @property
    def job_status(self) -> str:
        return self.caller.bench.job_status if self.caller is not None else self.status

    @property
    def status(self) -> str:
        """Of these steps so far: what `success()`, `failure()` and `cancelled()` ask."""
        if self.cancellation.cause is not None:
            return CANCELLED
        return FAILURE if self.failed else SUCCESS

    @property
    def conclusion(self) -> str:
        """What the job ends with. Time that ran out is a failure."""
        if self.cancellation.cause is CancelCause.TIMEOUT:
            return FAILURE
        return self.status

    async def step_ended(self) -> None:
        """Wait until the step that runs now has to end: the run is cancelled and its condition does not hold any more, or the time that
        was left then is over."""
        await self.step_end.wait()
        if await self._goes_on():
            await self.cancellation.expired.wait()

    @property
    def stopped(self) -> bool:
        """Whether another step has cancelled this one, which runs in the background."""
        return self.cancellation.stopped

    async def _goes_on(self) -> bool:
        """Whether the conditions of the step, and of the steps it is within, hold though the run is cancelled."""
        if self.stopped:
            return False
        if self.caller is not None and not await self.caller.bench._goes_on():  # noqa: SLF001 - another of its kind
            return False
        try:
            return self.condition is None or await self.evaluate(self.condition.holds)
        except EvaluationError:
            return False

    def record(self, step_id: str, outcome: StepOutcome) -> None:
        """Keep how a step ended, for the steps after it."""
        if step_id:
            self.outcomes[step_id] = outcome
        self.failed |= outcome.conclusion == FAILURE

    def note_matchers(self, file: bytes, matchers: Iterable[Matcher]) -> None:
        """Remember the file of matchers that were added, and forget those of matchers that are gone."""
        files = {**self.variables.matchers, **{matcher.owner.lower(): file for matcher in matchers}}
        alive = {owner.lower() for owner in self.matchers.owners}
        self.variables.matchers.clear()
        self.variables.matchers.update({owner: files[owner] for owner in files if owner in alive})

    async def evaluate(self, ask: Callable[[Scope], T], env: Mapping[str, str] | None = None) -> T:
        """`ask` with the scope of a step; `env` is added to what expressions see as `env`. Raises EvaluationError."""
        given = self.caller.env if self.caller is not None else {}
        scope = self._scope({**self.env, **given, **(env or {})})
        while True:
            try:
                return ask(scope)
            except HashNeededError as needed:
                answer = await hash_files(self.guest.files, needed.patterns, self.paths.workspace)
                self._hashes.answer(needed.patterns, answer)

    def _scope(self, env: Mapping[str, str]) -> Scope:
        contexts: dict[str, Value] = {
            "github": self._github(),
            "env": env_context(env),
            "steps": steps_context(self.outcomes),
            "job": {**job_context(self.job_status), **self.facts.job},
            "runner": self.facts.runner,
            "secrets": dict(self.order.secrets),
        }
        if self.caller is not None:
            contexts |= {"inputs": dict(self.caller.inputs), "secrets": None, "vars": None, "needs": None}
        return step_scope(self.facts.scope, status=self.status, contexts=contexts).with_functions(
            hashFiles=self._hashes
        )

    def _github(self) -> Value:
        github = with_token(self.facts.scope.contexts.get("github"), self.order.secrets)
        if not isinstance(github, Mapping):
            return github
        return {
            **github,
            "action": self.action,
            **(place_context(self.caller.place) if self.caller is not None else {}),
        }


def place_context(place: Place) -> dict[str, str]:
    """What `github` says of the action that steps are of; in upper case after `GITHUB_`, the variables that say it."""
    return {"action_path": place.path, "action_repository": place.repository, "action_ref": place.ref}
