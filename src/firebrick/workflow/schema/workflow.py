"""The shape of a workflow file: every documented key, what it may hold, what may be named in its expressions, and what is not there yet."""

from __future__ import annotations

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.container import CONTAINER, SERVICES
from firebrick.workflow.schema.element import (
    anything,
    boolean,
    choice,
    condition,
    names,
    number,
    one_or_more,
    primitive,
    record,
    text,
)
from firebrick.workflow.schema.event import ON
from firebrick.workflow.schema.shape import Key, Kind, Leaf, Record, Shape
from firebrick.workflow.schema.step import STEPS

# --- what workflows and jobs share ---

_SCOPES = (
    "actions", "artifact-metadata", "attestations", "checks", "code-quality", "contents", "deployments", "discussions", "drives", "issues",
    "organization-projects", "packages", "pages", "pull-requests", "repository-projects", "security-events", "statuses",
)  # fmt: skip
# Scopes that are not to be read and written, but used or not.
_LEVELS = {
    **dict.fromkeys(_SCOPES, ("read", "write", "none")),
    **dict.fromkeys(("copilot-requests", "id-token"), ("write", "none")),
    **dict.fromkeys(("models", "vulnerability-alerts"), ("read", "none")),
}
_PERMISSIONS = Shape(
    "read-all, write-all, or scopes with read, write or none",
    leaves=(Leaf(choices=("read-all", "write-all")),),
    records=(
        Record(
            {
                scope: Key(choice(f"{', '.join(levels[:-1])} or {levels[-1]}", *levels))
                for scope, levels in sorted(_LEVELS.items())
            }
        ),
    ),
)
_OWN_TOKEN = "the token of a job is the secret GITHUB_TOKEN, and may do what that may"  # noqa: S105 - a sentence


def _concurrency(at: Allowed, kind: Kind) -> Shape:
    group = {
        "group": Key(text("the name of a group", at, filled=True), required=True),
        "cancel-in-progress": Key(boolean(at)),
        "queue": Key(Shape("single or max", leaves=(Leaf(choices=("single", "max"), allowed=at),))),
    }
    return Shape(
        "the name of a group, or group and cancel-in-progress",
        leaves=(Leaf(kind, at),),
        records=(Record(group),),
    )


def _defaults(at: Allowed | None) -> Shape:
    run = {
        "shell": Key(text("a shell", at, filled=True, placed=True)),
        "working-directory": Key(text("a directory", at, filled=True, placed=True)),
    }
    return record("defaults", {"run": Key(record("shell and working-directory", run))})


# --- jobs ---

_ANY_VALUE = anything(allowed.STRATEGY)
_COMBINATIONS = Key(
    Shape(
        "a sequence of combinations",
        items=Shape("values by name", records=(Record(others=_ANY_VALUE),), expression=allowed.STRATEGY),
        expression=allowed.STRATEGY,
    )
)
_MATRIX = Shape(
    "vectors by name, include, exclude",
    records=(
        Record(
            {"include": _COMBINATIONS, "exclude": _COMBINATIONS},
            others=Shape("a sequence of values", items=_ANY_VALUE, expression=allowed.STRATEGY),
        ),
    ),
    expression=allowed.STRATEGY,
)
_STRATEGY = Shape(
    "matrix, fail-fast, max-parallel",
    records=(
        Record(
            {
                "matrix": Key(_MATRIX),
                "fail-fast": Key(boolean(allowed.STRATEGY)),
                "max-parallel": Key(number("a number", allowed.STRATEGY)),
            }
        ),
    ),
    expression=allowed.STRATEGY,
)
_RUNS_ON = Shape(
    "a label or a sequence of labels",
    leaves=(Leaf(Kind.FILLED, allowed.JOB),),
    items=text("a label", allowed.JOB, filled=True),
    records=(
        Record(
            {
                "group": Key(text("a group", allowed.JOB, filled=True), ignored="there are no groups of runners"),
                "labels": Key(one_or_more("a label or a sequence of labels", allowed.JOB)),
            }
        ),
    ),
)
_ENVIRONMENT = Shape(
    "the name of an environment, or name, url and deployment",
    leaves=(Leaf(Kind.TEXT, allowed.JOB),),
    records=(
        Record(
            {
                "name": Key(text("the name of an environment", allowed.JOB), required=True),
                "url": Key(text("a URL", allowed.ENVIRONMENT_URL)),
                "deployment": Key(boolean(allowed.JOB)),
            }
        ),
    ),
)
_SNAPSHOT = Shape(
    "the name of an image, or image-name, version and if",
    leaves=(Leaf(Kind.FILLED),),
    records=(
        Record(
            {
                "image-name": Key(text("the name of an image", filled=True), required=True),
                "version": Key(text("a version", filled=True)),
                "if": Key(condition(allowed.SNAPSHOT_IF)),
            }
        ),
    ),
)
_COMMON_JOB = {
    "name": Key(text("a text", allowed.JOB)),
    "needs": Key(one_or_more("a job or a sequence of jobs", placed=True)),
    "if": Key(condition(allowed.JOB_IF)),
    "strategy": Key(_STRATEGY),
    "permissions": Key(_PERMISSIONS, ignored=_OWN_TOKEN),
    "concurrency": Key(_concurrency(allowed.JOB, Kind.FILLED)),
}
_STEPS_JOB = Record(
    {
        **_COMMON_JOB,
        "runs-on": Key(_RUNS_ON, required=True),
        "steps": Key(STEPS),
        "env": Key(names("names with their values", allowed.JOB_ENV, whole=allowed.JOB_ENV)),
        "defaults": Key(_defaults(allowed.JOB_DEFAULTS)),
        "outputs": Key(names("names with their values", allowed.JOB_OUTPUTS)),
        "timeout-minutes": Key(number("a number of minutes", allowed.JOB)),
        "cancel-timeout-minutes": Key(number("a number of minutes", allowed.JOB)),
        "continue-on-error": Key(boolean(allowed.JOB)),
        "container": Key(CONTAINER),
        "services": Key(SERVICES),
        "environment": Key(_ENVIRONMENT),
        "snapshot": Key(_SNAPSHOT, ignored="no image is made of the job's machine"),
    }
)
_SECRETS = Shape(
    "inherit, or secrets by name",
    leaves=(Leaf(choices=("inherit",)),),
    records=names("", allowed.CALL_SECRETS).records,
)
_CALL_JOB = Record(
    {
        **_COMMON_JOB,
        "uses": Key(text("a workflow, as ./.github/workflows/x.yml", filled=True), required=True),
        "with": Key(Shape("inputs with their values", records=(Record(others=primitive(allowed.CALL_WITH)),))),
        "secrets": Key(_SECRETS),
    }
)
_JOBS = Shape(
    "jobs by name",
    records=(Record(others=Shape("a job: a mapping with runs-on and steps", records=(_STEPS_JOB, _CALL_JOB))),),
)

WORKFLOW = record(
    "a workflow: a mapping with on and jobs",
    {
        "name": Key(text("a text")),
        "run-name": Key(text("a text", allowed.RUN_NAME)),
        "on": Key(ON, required=True),
        "permissions": Key(_PERMISSIONS, ignored=_OWN_TOKEN),
        "env": Key(names("names with their values", allowed.WORKFLOW_ENV, whole=allowed.WORKFLOW_ENV)),
        "defaults": Key(_defaults(None)),
        "concurrency": Key(_concurrency(allowed.WORKFLOW_CONCURRENCY, Kind.TEXT)),
        "jobs": Key(_JOBS, required=True),
    },
)
