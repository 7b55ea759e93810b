"""What a run looks like right now: events in, a picture of jobs and steps out. The live view draws it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from firebrick.node.event import (
    Annotation,
    ArtifactStored,
    Conclusion,
    Event,
    JobFinished,
    JobsPlanned,
    JobStarted,
    LogLine,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)

TAIL: Final = 40


@dataclass(slots=True)
class StepLine:
    """`conclusion` is None while the step waits (`started` is None too) or runs. `tail` are its last lines."""

    name: str
    started: float | None = None
    seconds: float = 0.0
    conclusion: Conclusion | None = None
    forgiven: bool = False
    exit_code: int | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    lines: int = 0
    summary: str = ""

    @property
    def runs(self) -> bool:
        return self.started is not None and self.conclusion is None


@dataclass(slots=True)
class JobCard:
    id: str
    started: float | None = None
    name: str = ""
    image: str = ""
    start: str = ""
    start_ms: float = 0.0
    machine: str = ""
    steps: list[StepLine] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0
    conclusion: Conclusion | None = None
    message: str = ""
    headed: bool = False


@dataclass(slots=True)
class Board:
    """`show` takes the events in their order."""

    run: str = ""
    workflow: str = ""
    jobs: dict[str, JobCard] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)
    artifacts: list[ArtifactStored] = field(default_factory=list)
    finished: RunFinished | None = None

    def show(self, event: Event) -> None:
        match event:
            case LogLine():
                self._log(event)
            case StepStarted() | StepFinished():
                self._step(event)
            case JobStarted() | JobFinished():
                self._job(event)
            case RunStarted():
                self.run, self.workflow = event.run, event.name or event.workflow
                self.jobs = {job: JobCard(job, name=job) for job in event.jobs}
            case JobsPlanned():
                self._become(event)
            case Annotation():
                self.annotations.append(event)
            case ArtifactStored():
                self.artifacts.append(event)
            case RunFinished():
                self.finished = event

    def _become(self, event: JobsPlanned) -> None:
        """The jobs come where the one stood that they are."""
        cards: dict[str, JobCard] = {}
        for name, card in self.jobs.items():
            if name == event.job:
                cards |= {job: JobCard(job, name=job) for job in event.jobs}
            else:
                cards.setdefault(name, card)
        self.jobs = cards

    def _card(self, job: str) -> JobCard:
        return self.jobs.setdefault(job, JobCard(job, name=job))

    def _log(self, event: LogLine) -> None:
        card = self._card(event.job)
        if event.step < 0:
            card.note = event.text
        elif event.step < len(card.steps) and event.text != "##[endgroup]":
            step = card.steps[event.step]
            step.tail.append(event.text)
            step.lines += 1

    def _step(self, event: StepStarted | StepFinished) -> None:
        steps = self._card(event.job).steps
        while len(steps) <= event.step:
            steps.append(StepLine("step"))
        step = steps[event.step]
        if isinstance(event, StepStarted):
            step.name, step.started = event.name, event.at
        else:
            step.conclusion, step.seconds, step.exit_code = event.conclusion, event.seconds, event.exit_code
            step.forgiven = event.is_forgiven
            step.summary, step.name = event.summary, event.name or step.name

    def _job(self, event: JobStarted | JobFinished) -> None:
        card = self._card(event.job)
        if isinstance(event, JobStarted):
            card.name, card.image, card.machine, card.started = event.name, event.image, event.machine, event.at
            card.start, card.start_ms, card.note = event.start, event.start_ms, ""
            card.steps = [StepLine(name) for name in event.steps]
        else:
            card.conclusion, card.seconds, card.message, card.note = event.conclusion, event.seconds, event.message, ""
