"""The life of a machine, and what may be asked of it when.

        boot, restore
             |
         STARTING ---- the agent has answered and taken its identity ----> RUNNING <--- pause, resume ---> PAUSED
             |                                                              |   ^                          |   ^
             |                                                    snapshot, fork |               snapshot, fork |
             |                                                              v   |                          v   |
             |                                                             SAVING ----------------------- SAVING
             |                                                              |
             |                                      stop ---- STOPPING <----+
             v                                                    |
           ENDED <------------------------------------------------+---- at any moment: it powered off, crashed, was killed

From RUNNING, a machine that was made to outlive its process can also be RELEASED: it runs on, and is another's to use.

One object writes the state: the machine, through its `Life`. Pause, resume, snapshot and stop take turns; kill never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from firebrick.machine.errors import StateError


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SAVING = "saving"
    STOPPING = "stopping"
    ENDED = "ended"
    RELEASED = "released"


class Operation(StrEnum):
    """What one may ask. `USE` is everything that speaks to the agent."""

    USE = "use"
    PAUSE = "pause"
    RESUME = "resume"
    SNAPSHOT = "snapshot"
    STOP = "stop"
    RELEASE = "release"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Do it."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is so already; nothing to do, and no error."""


@dataclass(frozen=True, slots=True)
class Denied:
    reason: str
    hint: str = ""


Verdict = Accepted | Ignored | Denied

_STARTING: Final = Denied("it is still starting", "Wait until `launch` has returned it.")
_PAUSED: Final = Denied("it is paused", "Resume it first.")
_SAVING: Final = Denied("it is being saved", "Wait until the snapshot is done.")
_STOPPING: Final = Denied("it is being stopped")
_ENDED: Final = Denied("it has ended", "`console()` has its last output and `wait()` says how it ended.")

_RELEASED: Final = Denied("it was released", "Whoever adopts it can use it.")

_EVERY: Final[dict[State, Denied]] = {
    State.STARTING: _STARTING,
    State.PAUSED: _PAUSED,
    State.SAVING: _SAVING,
    State.STOPPING: _STOPPING,
    State.ENDED: _ENDED,
    State.RELEASED: _RELEASED,
}

_ADMISSIONS: Final[dict[tuple[State, Operation], Verdict]] = {
    (State.RUNNING, Operation.USE): Accepted(),
    (State.RUNNING, Operation.PAUSE): Accepted(),
    (State.RUNNING, Operation.RESUME): Ignored(),
    (State.RUNNING, Operation.SNAPSHOT): Accepted(),
    (State.RUNNING, Operation.STOP): Accepted(),
    (State.RUNNING, Operation.RELEASE): Accepted(),
    (State.PAUSED, Operation.PAUSE): Ignored(),
    (State.PAUSED, Operation.RESUME): Accepted(),
    (State.PAUSED, Operation.SNAPSHOT): Accepted(),
    (State.PAUSED, Operation.STOP): Accepted(),
    (State.SAVING, Operation.USE): Accepted(),  # the agent's end holds it back until the machine goes on
    (State.STOPPING, Operation.STOP): Ignored(),
    (State.ENDED, Operation.STOP): Ignored(),
    (State.ENDED, Operation.KILL): Ignored(),
    (State.RELEASED, Operation.RELEASE): Ignored(),
    (State.RELEASED, Operation.KILL): _RELEASED,
}

_NEXT: Final[dict[State, frozenset[State]]] = {
    State.STARTING: frozenset({State.RUNNING}),
    State.RUNNING: frozenset({State.PAUSED, State.SAVING, State.STOPPING, State.RELEASED}),
    State.PAUSED: frozenset({State.RUNNING, State.SAVING, State.STOPPING}),
    State.SAVING: frozenset({State.RUNNING, State.PAUSED}),
    State.STOPPING: frozenset(),
    State.ENDED: frozenset(),
    State.RELEASED: frozenset(),
}


def admit(state: State, operation: Operation) -> Verdict:
    """Whether a machine in `state` takes the operation. Pure, and total: every pair has a verdict."""
    if (state, operation) in _ADMISSIONS:
        return _ADMISSIONS[state, operation]
    return Accepted() if operation is Operation.KILL else _EVERY[state]


class Life:
    """The state of one machine. Only the machine itself calls `enter`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = State.STARTING

    @property
    def state(self) -> State:
        return self._state

    def enter(self, state: State) -> None:
        """Go over to `state`. A machine that has ended stays ended, without an error: its end may come in the middle of anything.

        Raises StateError for a step the picture above does not have."""
        if self._state in (State.ENDED, State.RELEASED) or state is self._state:
            return
        if state is not State.ENDED and state not in _NEXT[self._state]:
            raise StateError(f"machine {self._name} cannot go from {self._state} to {state}")
        self._state = state

    def admits(self, operation: Operation) -> bool:
        """True: do it. False: it is so already. Raises StateError when it is denied."""
        verdict = admit(self._state, operation)
        if isinstance(verdict, Denied):
            raise StateError(f"cannot {operation} machine {self._name}: {verdict.reason}", hint=verdict.hint)
        return isinstance(verdict, Accepted)
