"""The shapes of the API: what a request may hold, within which bounds, and what is answered."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from firebrick.node.container.image import may_be_named
from firebrick.server.artifact import Artifact
from firebrick.server.log import Tail
from firebrick.server.plan import DISPATCH
from firebrick.server.record import Build, BuildRequest, Repeat, State
from firebrick.workflow.event.inputs import MAX_DISPATCH_CHARACTERS, MAX_DISPATCH_INPUTS

_MOST_PATTERNS: Final = 64


def _absent(value: object) -> object:
    """Clients say "not given" in several ways."""
    return "" if value is None or value == "HEAD" else value


def _relative(path: str) -> str:
    if path.startswith("/") or any(part in ("..", "") for part in path.split("/")) or not path.isprintable():
        raise ValueError("must be a relative path without empty parts or `..`")
    return path


def _relative_or_empty(path: str) -> str:
    return path and _relative(path)


def _text(value: str) -> str:
    if "\0" in value or (value and not value.strip()):
        raise ValueError("must not be blank or hold NUL")
    return value


def _image(name: str) -> str:
    """As a workflow may name it: what somebody proposed may have made the others, and a build is told where they are."""
    if name and not may_be_named(name):
        raise ValueError("was made for a container or an action, and may not be named")
    return name


Whole = Annotated[int, Field(ge=-(1 << 53), le=1 << 53)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Ref = Annotated[str, BeforeValidator(_absent), Field(max_length=255)]
Pattern = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_relative)]


class BuildBody(BaseModel):
    """What to build. Everything but `repo_url` may be left out."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)

    repo_url: Annotated[str, Field(min_length=1, max_length=2048, examples=["https://example.org/owner/name.git"])]
    branch: Annotated[Ref, Field(description="Branch or tag; the default branch if left out.")] = ""
    commit: Annotated[Ref, Field(description="7 to 64 hex digits; the last of the branch if left out.")] = ""
    workflow: Annotated[
        str,
        BeforeValidator(_absent),
        Field(max_length=255, description="Path of a workflow file in the repository."),
        AfterValidator(_relative_or_empty),
    ] = ""
    command: Annotated[
        str,
        BeforeValidator(_absent),
        Field(max_length=8192, description="A shell command to run instead of a workflow."),
        AfterValidator(_text),
    ] = ""
    image: Annotated[
        str,
        BeforeValidator(_absent),
        Field(
            max_length=128,
            pattern=r"^([a-z0-9][a-z0-9._-]*)?$",
            description="Image to use instead of what runs-on says; none that was made for a container or an action.",
        ),
        AfterValidator(_image),
    ] = ""
    artifacts: Annotated[
        list[Pattern],
        Field(max_length=_MOST_PATTERNS, description="Globs of files to keep, relative to the workspace."),
    ] = Field(default_factory=list)
    vcpus: Annotated[int, Field(ge=1, le=64, description="Of each machine.")] = 2
    memory_mib: Annotated[int, Field(ge=128, le=1 << 20, description="Of each machine.")] = 2048
    timeout_s: Annotated[
        float, Field(gt=0, le=86400, allow_inf_nan=False, description="Of the whole run, in seconds.")
    ] = 600.0
    event: Annotated[
        str,
        BeforeValidator(_absent),
        Field(pattern=r"^([a-z][a-z_]{0,63})?$", description="The event whose filters decide which workflows start."),
    ] = ""
    payload: Annotated[
        dict[str, Any] | None,
        Field(description="The event as the forge sent it; made up of what is built if left out."),
    ] = None
    inputs: Annotated[
        dict[
            Annotated[str, Field(max_length=255)],
            Annotated[str | bool | Whole | Real, Field(union_mode="left_to_right")],
        ],
        Field(max_length=MAX_DISPATCH_INPUTS, description="Those of a `workflow_dispatch`."),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_the_event(self) -> Self:
        if self.event and self.command:
            raise ValueError("a `command` is not started by an `event`")
        if self.payload is not None and not self.event:
            raise ValueError("a `payload` is that of an `event`")
        if self.event == DISPATCH and not self.workflow:
            raise ValueError("a `workflow_dispatch` is of one `workflow`")
        if self.inputs and self.event != DISPATCH:
            raise ValueError("`inputs` are those of a `workflow_dispatch`")
        if sum(len(name) + len(str(value)) for name, value in self.inputs.items()) > MAX_DISPATCH_CHARACTERS:
            raise ValueError(f"inputs are too large: more than {MAX_DISPATCH_CHARACTERS} characters")
        return self

    def request(self) -> BuildRequest:
        """The same as the record the rest of the server works with, but the payload."""
        fields = self.model_dump(exclude={"artifacts", "commit", "payload"})
        return BuildRequest(**fields, commit=self.commit.lower(), artifacts=tuple(self.artifacts))


class Accepted(BaseModel):
    """The build is kept, and will be run."""

    build_id: str
    status: State


class WorkflowView(BaseModel):
    """A workflow, and whether the event starts it; `build` is the one that runs it."""

    path: str
    name: str
    starts: bool
    reason: str
    build: str | None


class RepeatView(BaseModel):
    """What another attempt is of: of which `build`, and how much of it."""

    build: str
    failed: bool
    job: str | None
    step: int | None
    command: str | None


class BuildView(BaseModel):
    """A build without its log. Of its attempts the first is the `origin` of all."""

    id: str
    status: State
    created_at: datetime
    updated_at: datetime
    repo_url: str
    branch: str | None
    commit: Annotated[
        str | None, Field(description="The commit asked for; once cloned, the full name of what is built.")
    ]
    artifacts_count: int
    message: Annotated[str | None, Field(description="Why the build failed.")]
    conclusion: Annotated[
        Literal["success", "failure", "cancelled", "skipped"] | None,
        Field(description="None as long as the build has not ended; skipped where its event starts nothing."),
    ]
    cancel_requested: bool
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    workflow: str | None
    command: str | None
    image: str | None
    artifacts: list[str]
    vcpus: int
    memory_mib: int
    timeout_s: float
    event: str | None
    ref: Annotated[str | None, Field(description="What the commit is of, once cloned.")]
    workflows: Annotated[list[WorkflowView], Field(description="What became of each workflow the event was asked of.")]
    origin: str
    run_attempt: int
    repeat: RepeatView | None

    @classmethod
    def of(cls, build: Build) -> BuildView:
        return cls.model_validate(_fields(build))


class BuildDetail(BuildView):
    """A build with the end of its log."""

    log: Annotated[str, Field(description="The last 64 KiB of the log.")]
    log_truncated: Annotated[bool, Field(description="Whether there is more log before it.")]

    @classmethod
    def with_log(cls, build: Build, tail: Tail) -> BuildDetail:
        return cls.model_validate(_fields(build) | {"log": tail.text, "log_truncated": tail.truncated})


def _fields(build: Build) -> dict[str, object]:
    request = build.request
    return {
        "id": build.id,
        "status": build.state,
        "created_at": build.created_at,
        "updated_at": build.updated_at,
        "repo_url": request.repo_url,
        "branch": request.branch or None,
        "commit": build.sha or request.commit or None,
        "artifacts_count": build.artifacts_count,
        "message": build.message or None,
        "conclusion": build.conclusion,
        "cancel_requested": build.cancel is not None,
        "attempt": build.attempt,
        "started_at": build.started_at,
        "finished_at": build.finished_at,
        "workflow": request.workflow or None,
        "command": request.command or None,
        "image": request.image or None,
        "artifacts": list(request.artifacts),
        "vcpus": request.vcpus,
        "memory_mib": request.memory_mib,
        "timeout_s": request.timeout_s,
        "event": request.event or None,
        "ref": build.ref or None,
        "workflows": [asdict(verdict) | {"build": verdict.build or None} for verdict in build.verdicts],
        "origin": build.origin,
        "run_attempt": build.run_attempt,
        "repeat": _repeat(request.repeat),
    }


def _repeat(repeat: Repeat | None) -> dict[str, object] | None:
    return (
        None
        if repeat is None
        else {name: value or None for name, value in asdict(repeat).items()} | {"failed": repeat.failed}
    )


class ArtifactView(BaseModel):
    """One file a build left. `url` is where to get it, relative to the server."""

    path: str
    size: int
    sha256: str
    name: str
    job: str
    url: str

    @classmethod
    def of(cls, artifact: Artifact, url: str) -> ArtifactView:
        return cls(
            path=artifact.path,
            size=artifact.size,
            sha256=artifact.sha256,
            name=artifact.name,
            job=artifact.job,
            url=url,
        )


class Health(BaseModel):
    """The server is there and its store answers."""

    status: Literal["ok"] = "ok"
    version: str
    queued: int
    running: int


class ProblemView(BaseModel):
    """An error, as RFC 9457 has it. `errors` names the fields of a request that are not as they must be."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str | None = None
    errors: list[dict[str, str]] | None = None
