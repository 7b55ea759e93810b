"""The shapes of what is asked of builds that are there: another attempt, decisions on environments; and of schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from firebrick.server.gatekeeper import Held
from firebrick.server.record import Repeat
from firebrick.server.schedule import Due


class RerunBody(BaseModel):
    """Which part of a build is run again; all of it where nothing is said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failed: Annotated[bool, Field(description="Only the jobs that failed, and those that need them.")] = False
    job: Annotated[str, Field(max_length=512, description="The job of the checkpoint, where there are several.")] = ""
    from_step: Annotated[
        int, Field(ge=0, le=1_000_000, description="Go on before this step, counted from 1, from its checkpoint.")
    ] = 0
    command: Annotated[str, Field(max_length=8192, description="What that step runs instead of its script.")] = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.job or self.command) and not self.from_step:
            raise ValueError("`job` and `command` go with `from_step`")
        if self.failed and self.from_step:
            raise ValueError("give `failed` or `from_step`, not both")
        return self

    def repeat(self) -> Repeat:
        return Repeat(build="", failed=self.failed, job=self.job, step=self.from_step, command=self.command)


class DecisionBody(BaseModel):
    """Whether a build may go on in an environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: Annotated[str, Field(min_length=1, max_length=255)]
    state: Literal["approved", "rejected"]
    comment: Annotated[str, Field(max_length=1024)] = ""


class HeldView(BaseModel):
    """An environment that jobs of the build have come to, and what it says of them now."""

    environment: str
    state: Literal["waiting", "open", "refused"]
    message: str | None
    until: Annotated[datetime | None, Field(description="When a wait is over by itself.")]
    asked_at: datetime
    approved: bool | None
    comment: str | None
    decided_at: datetime | None

    @classmethod
    def of(cls, held: Held) -> HeldView:
        gate, ruling = held.gate, held.ruling
        return cls(
            environment=gate.environment,
            state="waiting" if ruling.waits else "refused" if ruling.refusal else "open",
            message=ruling.waits or ruling.refusal or None,
            until=ruling.until,
            asked_at=gate.asked_at,
            approved=gate.approved,
            comment=gate.comment or None,
            decided_at=gate.decided_at,
        )


class ScheduleView(BaseModel):
    """A schedule of a workflow on the default branch, and when it is due next."""

    repository: str
    workflow: str
    cron: str
    timezone: str
    branch: str
    next: datetime

    @classmethod
    def of(cls, due: Due) -> ScheduleView:
        each = due.schedule
        return cls(
            repository=each.repository,
            workflow=each.workflow,
            cron=each.cron,
            timezone=each.zone,
            branch=each.branch,
            next=due.at,
        )
