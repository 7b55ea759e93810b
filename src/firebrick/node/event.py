"""What happens in a run, in order, as frozen records: the one stream behind the live view, `--json`, the log and the API.

Times are seconds since 1970. Text is masked already: no secret is in an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Conclusion(StrEnum):
    """How something ended. `WAITING`: it has not begun, because its environment does not let it in yet; another attempt is to go on from there."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    WAITING = "waiting"


class CancelCause(StrEnum):
    """Why a run, or a job of it, was cancelled; `TIMEOUT` makes its conclusion a failure, the others `cancelled`. `MATRIX`: another
    combination of the job's matrix failed, and the strategy says fail-fast. `CONCURRENCY`: another run or job took its place in a group."""

    USER = "user"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    MATRIX = "matrix"
    CONCURRENCY = "concurrency"


def _tag(name: str) -> str:
    """`StepFinished` -> `step_finished`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=_tag, kw_only=True):
    at: float


class RunStarted(Event, frozen=True, kw_only=True):
    """`name` is what `run-name` comes to, empty where there is none."""

    run: str
    workflow: str
    jobs: tuple[str, ...]
    name: str = ""


class JobsPlanned(Event, frozen=True, kw_only=True):
    """What a job of the run turned out to be, now that those it needs have ended: the combinations of its matrix, or the jobs of the workflow it
    calls. These come in its place."""

    job: str
    jobs: tuple[str, ...]


class JobStarted(Event, frozen=True, kw_only=True):
    """`start` says how the machine came to be: `fork` of a template or `boot`; `start_ms` how long that took. `resumed` is empty, or says
    where the job goes on from: `RUN before step N`, that run's steps before it not being run again."""

    job: str
    name: str
    machine: str
    image: str
    start: str
    start_ms: float
    steps: tuple[str, ...]
    resumed: str = ""


class ActionResolved(Event, frozen=True, kw_only=True):
    """Which commit an action of another repository, `owner/name@ref`, is in this job. Comes before the job has a machine, or later for
    one that an action of the workspace uses."""

    job: str
    action: str
    commit: str


class StepStarted(Event, frozen=True, kw_only=True):
    job: str
    step: int
    name: str


class LogLine(Event, frozen=True, kw_only=True):
    """One line without its newline. `step` is -1 for lines that belong to no step. `stream` is `node` for words of the node itself, else
    `stdout`: a step's two streams are one pipe, so that its lines come in the order they were written."""

    job: str
    step: int
    stream: str
    text: str


class Annotation(Event, frozen=True, kw_only=True):
    """`level` is `notice`, `warning` or `error`."""

    job: str
    step: int
    level: str
    message: str
    title: str = ""
    file: str = ""
    line: int | None = None
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None


class StepFinished(Event, frozen=True, kw_only=True):
    """`outcome` is before `continue-on-error`, `conclusion` after it; None is the same. `name` is given where a step that was not in the list of the
    job's is skipped: that has no `StepStarted`."""

    job: str
    step: int
    conclusion: Conclusion
    outcome: Conclusion | None = None
    seconds: float
    exit_code: int | None = None
    summary: str = ""
    name: str = ""

    @property
    def is_forgiven(self) -> bool:
        """Whether it failed and the job goes on as if it had not."""
        return self.outcome is Conclusion.FAILURE and self.conclusion is Conclusion.SUCCESS


class MachineKept(Event, frozen=True, kw_only=True):
    """The machine of a job was saved. `kind` is `failed`, `before` (a checkpoint before the step) or `end`; `label` is what it is called within its
    job; `milliseconds` and `bytes` are what it cost; it is there until `expires`."""

    job: str
    step: int
    kind: str
    label: str
    milliseconds: float
    bytes: int
    expires: float


class ArtifactStored(Event, frozen=True, kw_only=True):
    """`path` is relative to the artifact directory of the order."""

    job: str
    name: str
    path: str
    size: int
    sha256: str


class JobFinished(Event, frozen=True, kw_only=True):
    """Comes after the job's machine is gone and everything it held is released."""

    job: str
    conclusion: Conclusion
    seconds: float
    outputs: Mapping[str, str]
    message: str = ""


class RunFinished(Event, frozen=True, kw_only=True):
    run: str
    conclusion: Conclusion
    seconds: float
    message: str = ""
