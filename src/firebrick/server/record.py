"""What a build is, as frozen records, and the states it goes through."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from firebrick.node.event import CancelCause, Conclusion
from firebrick.text import encodable

_SPACE: Final = uuid.UUID("0c7f4c0e-52a1-4f0e-9c49-6a1f8b5f6d2e")


def new_id() -> str:
    return f"build_{uuid.uuid4()}"


def derived_id(*names: str) -> str:
    """The id of a build there is to be only one of, whoever asks and how often."""
    return f"build_{uuid.uuid5(_SPACE, chr(0).join(names))}"


class State(StrEnum):
    """Where a build is. The words are those of the API.

    queued -> cloning_repo -> starting_vm -> running_build -> collecting_artifacts -> completed | failed
                    |                                             |
                    +-> completed, where nothing is to run        +-> waiting -> queued

    Any state may end in `failed`; a build whose server ended goes back to `queued`. One that is `waiting` has jobs that their environments do not
    let in yet; it holds nothing, and goes on where it was."""

    QUEUED = "queued"
    CLONING = "cloning_repo"
    STARTING = "starting_vm"
    RUNNING = "running_build"
    COLLECTING = "collecting_artifacts"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL: Final = frozenset({State.COMPLETED, State.FAILED})
UNDER_WAY: Final = frozenset({State.CLONING, State.STARTING, State.RUNNING, State.COLLECTING})

BEFORE: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.QUEUED: UNDER_WAY | {State.WAITING},
        State.CLONING: frozenset({State.QUEUED}),
        State.STARTING: frozenset({State.CLONING}),
        State.RUNNING: frozenset({State.STARTING}),
        # A run none of whose jobs got a machine (all skipped, or refused) still has artifacts, none, to collect.
        State.COLLECTING: frozenset({State.STARTING, State.RUNNING}),
        State.WAITING: frozenset({State.COLLECTING}),
        State.COMPLETED: frozenset({State.CLONING, State.COLLECTING}),
        State.FAILED: frozenset(State) - FINAL,
    }
)
"""From which states a state may be entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Another attempt at what `build` was: all of it, or only what `failed` and what needs that, or the job from a step (counted from 1) on, which
    runs `command` where that is given."""

    build: str
    failed: bool = False
    job: str = ""
    step: int = 0
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the event of a build starts a workflow of its repository, and why. `build` is the one that runs it."""

    path: str
    name: str
    starts: bool
    reason: str
    build: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What was asked for. `repo_url` holds no credential. Empty strings mean: not given. With an `event` its filters decide what runs; the payload,
    if there is one, is a file. `inputs` are those of a dispatch."""

    repo_url: str
    branch: str = ""
    commit: str = ""
    workflow: str = ""
    command: str = ""
    image: str = ""
    artifacts: tuple[str, ...] = ()
    vcpus: int = 2
    memory_mib: int = 2048
    timeout_s: float = 600.0
    event: str = ""
    inputs: Mapping[str, object] = field(default_factory=dict)
    repeat: Repeat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build, as it is now. `number` counts up in the order of arrival; `attempt` says how often it was started, `parked` how often it came to
    wait. `origin` is the build it is another attempt of, itself for the first; `run_attempt` counts these. `ref` is what `sha` was proved to be of, once cloned; `verdicts` are there
    once its event was asked.

    `message` says why a build failed. `conclusion` is None until it ends. `cancel` is why it is to end, once somebody asked."""

    id: str
    number: int
    request: BuildRequest
    state: State
    attempt: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str = ""
    conclusion: Conclusion | None = None
    cancel: CancelCause | None = None
    sha: str = ""
    artifacts_count: int = 0
    parked: int = 0
    origin: str = ""
    run_attempt: int = 1
    ref: str = ""
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. With `again` it is to be repeated: the work was interrupted, it did not fail. One that is `WAITING` goes on later.

    Message and hint may quote what others wrote; they are made so that every file and store takes them."""

    conclusion: Conclusion
    message: str = ""
    hint: str = ""
    artifacts_count: int = 0
    again: bool = False

    def __post_init__(self) -> None:
        for name in ("message", "hint"):
            object.__setattr__(self, name, encodable(getattr(self, name)).replace("\0", "\ufffd"))

    @property
    def words(self) -> str:
        """The last words of the log."""
        if self.again:
            return "==> Interrupted: the server shuts down; the build will be run again"
        if self.conclusion is Conclusion.WAITING:
            return f"==> {self.message[:1].upper()}{self.message[1:]}"
        if self.conclusion is Conclusion.SKIPPED:
            return f"==> Not started: {self.message}"
        if self.conclusion is Conclusion.SUCCESS:
            return f"==> Completed, {self.artifacts_count} artifact{'' if self.artifacts_count == 1 else 's'}"
        if self.conclusion is Conclusion.CANCELLED:
            return "==> Cancelled"
        return f"==> Failed: {self.message}" + (f"\n{self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many builds there are in each state."""

    by_state: Mapping[State, int] = field(default_factory=dict)

    @property
    def queued(self) -> int:
        return self.by_state.get(State.QUEUED, 0)

    @property
    def under_way(self) -> int:
        return sum(self.by_state.get(state, 0) for state in UNDER_WAY)
