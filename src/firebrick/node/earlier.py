"""What an earlier attempt of a run has left to the next one: how its jobs ended that are not run again, and the artifacts they stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firebrick.workflow.outcome import JobOutcome
from firebrick.workflow.plan import PlannedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierFile:
    """A file of an artifact: `path` is relative to the directory, and its first part is the artifact's own."""

    job: str
    name: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """`jobs` are by key those that are to stay as they ended; whatever needs a job that is run is run, too. `directory` has the files."""

    jobs: Mapping[str, JobOutcome] = field(default_factory=dict)
    files: Sequence[EarlierFile] = ()
    directory: Path = Path()


class Standing:
    """Which jobs of one workflow of a run stay as they ended. With `whole` none does: what calls the workflow needs something that is run."""

    def __init__(self, earlier: Earlier, *, whole: bool = False) -> None:
        self._earlier = earlier
        self._whole = whole
        self._moved: set[str] = set()
        self._due: set[str] = set()

    @property
    def is_whole(self) -> bool:
        """Whether every job stayed as it was."""
        return not self._moved

    def begin(self, job_id: str, needs: Sequence[str]) -> None:
        """The needs of this job have ended."""
        if self._whole or any(need in self._moved for need in needs):
            self._due.add(job_id)

    def is_due(self, job_id: str) -> bool:
        """Whether all of the job is run, because of what it needs."""
        return job_id in self._due

    def move(self, job_id: str) -> None:
        """Something of this job is run."""
        self._moved.add(job_id)

    def outcome(self, copy: PlannedJob) -> JobOutcome | None:
        """How it ended where it stays so; else it is one to be run."""
        return None if self.is_due(copy.job.id) else self._earlier.jobs.get(copy.key)
