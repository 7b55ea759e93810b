"""What a build is, as frozen records, and the states it goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from firebrick.node.event import CancelCause, Conclusion
from firebrick.text import encodable


class State(StrEnum):
    """Where a build is. The words are those of the API.

    queued -> cloning_repo -> starting_vm -> running_build -> collecting_artifacts -> completed | failed

    Any state may end in `failed`; a build whose server ended goes back to `queued`."""

    QUEUED = "queued"
    CLONING = "cloning_repo"
    STARTING = "starting_vm"
    RUNNING = "running_build"
    COLLECTING = "collecting_artifacts"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL: Final = frozenset({State.COMPLETED, State.FAILED})
UNDER_WAY: Final = frozenset({State.CLONING, State.STARTING, State.RUNNING, State.COLLECTING})

BEFORE: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.QUEUED: UNDER_WAY,
        State.CLONING: frozenset({State.QUEUED}),
        State.STARTING: frozenset({State.CLONING}),
        State.RUNNING: frozenset({State.STARTING}),
        # A run none of whose jobs got a machine (all skipped, or refused) still has artifacts, none, to collect.
        State.COLLECTING: frozenset({State.STARTING, State.RUNNING}),
        State.COMPLETED: frozenset({State.COLLECTING}),
        State.FAILED: frozenset(State) - FINAL,
    }
)
"""From which states a state may be entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What was asked for. `repo_url` holds no credential. Empty strings mean: not given."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build, as it is now. `number` counts up in the order of arrival; `attempt` says how often it was started.

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. With `again` it is to be repeated: the work was interrupted, it did not fail.

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
