"""The shape of a workflow file: every documented key, what it may hold, what may be named in its expressions, and what is not there yet."""

from __future__ import annotations

from firebrick.workflow import allowed
from firebrick.workflow.parser import Allowed
from firebrick.workflow.shape import Key, Kind, Leaf, Record, Shape


def _text(what: str, at: Allowed | None = None, *, filled: bool = False, placed: bool = False) -> Shape:
    return Shape(what, leaves=(Leaf(Kind.FILLED if filled else Kind.TEXT, at, placed=placed),))


def _choice(what: str, *choices: str) -> Shape:
    return Shape(what, leaves=(Leaf(choices=choices),))


def _boolean(at: Allowed | None = None) -> Shape:
    return Shape("true or false", leaves=(Leaf(Kind.BOOLEAN, at),))


def _number(what: str, at: Allowed | None = None) -> Shape:
    return Shape(what, leaves=(Leaf(Kind.NUMBER, at),))


def _condition(at: Allowed) -> Shape:
    return Shape("a condition", leaves=(Leaf(Kind.CONDITION, at),))


def _record(what: str, keys: dict[str, Key]) -> Shape:
    return Shape(what, records=(Record(keys),))


def _names(what: str, at: Allowed) -> Shape:
    """A mapping of names to texts, which one expression may give as a whole."""
    return Shape(what, records=(Record(others=_text("a text", at)),), expression=at)


def _one_or_more(what: str, at: Allowed | None = None, *, placed: bool = False) -> Shape:
    one = Leaf(Kind.FILLED, at, placed=placed)
    return Shape(what, leaves=(one,), items=Shape("a text that is not empty", leaves=(one,)))


def _anything(at: Allowed | None = None, depth: int = 12) -> Shape:
    """Any tree of values."""
    below = _anything(at, depth - 1) if depth else None
    leaves = (Leaf(Kind.BOOLEAN, at), Leaf(Kind.NUMBER, at), Leaf(Kind.NULL, at), Leaf(Kind.TEXT, at))
    return Shape("a value", leaves=leaves, items=below, records=(Record(others=below),) if below else ())


_ANYTHING = _anything()
_EMPTY = (Leaf(Kind.NULL),)

# --- on ---

_PATTERNS = _one_or_more("a pattern or a sequence of patterns")
_TYPES = Key(_one_or_more("an activity type or a sequence of them"))


def _event(*filters: str) -> Shape:
    """An event with filters, or with nothing."""
    known = {name: Key(_PATTERNS) for name in filters} | {"types": _TYPES}
    return Shape("filters of the event, or nothing", leaves=_EMPTY, records=(Record(known),))


_INPUT_TYPES = _choice(
    "one of string, boolean, number, choice, environment", "string", "boolean", "number", "choice", "environment"
)
_DISPATCH_INPUT = Shape(
    "the description of an input",
    leaves=_EMPTY,
    records=(
        Record(
            {
                "description": Key(_text("a text")),
                "type": Key(_INPUT_TYPES),
                "required": Key(_boolean()),
                "default": Key(_ANYTHING),
                "deprecationMessage": Key(_text("a text")),
                "options": Key(Shape("a sequence of texts", items=_text("a text", filled=True))),
            }
        ),
    ),
)
_CALL_INPUT = _record(
    "the description of an input",
    {
        "description": Key(_text("a text")),
        "type": Key(_choice("one of string, boolean, number", "string", "boolean", "number"), required=True),
        "required": Key(_boolean()),
        "default": Key(Shape("a value", leaves=(Leaf(Kind.BOOLEAN), Leaf(Kind.NUMBER), Leaf(Kind.TEXT)))),
        "deprecationMessage": Key(_text("a text")),
    },
)
_CALL_SECRET = Shape(
    "the description of a secret",
    leaves=_EMPTY,
    records=(Record({"description": Key(_text("a text")), "required": Key(_boolean())}),),
)
_CALL_OUTPUT = _record(
    "the description of an output",
    {"description": Key(_text("a text")), "value": Key(_text("a text", allowed.WORKFLOW_OUTPUT), required=True)},
)


def _each(what: str, shape: Shape) -> Key:
    return Key(Shape(what, leaves=_EMPTY, records=(Record(others=shape),)))


_PUSH = _event("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore")
_PULL_REQUEST = _event("branches", "branches-ignore", "paths", "paths-ignore")
_DISPATCH = Shape(
    "inputs, or nothing", leaves=_EMPTY, records=(Record({"inputs": _each("inputs by name", _DISPATCH_INPUT)}),)
)
_CALL = Shape(
    "inputs, secrets and outputs, or nothing",
    leaves=_EMPTY,
    records=(
        Record(
            {
                "inputs": _each("inputs by name", _CALL_INPUT),
                "secrets": _each("secrets by name", _CALL_SECRET),
                "outputs": _each("outputs by name", _CALL_OUTPUT),
            }
        ),
    ),
)
_SCHEDULE = Shape(
    "a sequence of schedules",
    items=_record(
        "a schedule",
        {"cron": Key(_text("five fields of cron", filled=True), required=True), "timezone": Key(_text("a time zone"))},
    ),
)
_WORKFLOW_RUN = Shape(
    "filters of the event",
    leaves=_EMPTY,
    records=(
        Record({"types": _TYPES, **{name: Key(_PATTERNS) for name in ("workflows", "branches", "branches-ignore")}}),
    ),
)
_PLAIN_EVENTS = (
    "branch_protection_rule", "check_run", "check_suite", "create", "delete", "deployment", "deployment_status", "discussion",
    "discussion_comment", "fork", "gollum", "image_version", "issue_comment", "issues", "label", "member", "milestone", "page_build", "project",
    "project_card", "project_column", "public", "registry_package", "release", "repository_dispatch", "status", "watch",
)  # fmt: skip
_EVENTS: dict[str, Shape] = {
    "push": _PUSH,
    "pull_request": _PULL_REQUEST,
    "pull_request_target": _PULL_REQUEST,
    "pull_request_comment": _event(),
    "pull_request_review": _event(),
    "pull_request_review_comment": _event(),
    "merge_group": _event("branches", "branches-ignore"),
    "schedule": _SCHEDULE,
    "workflow_dispatch": _DISPATCH,
    "workflow_call": _CALL,
    "workflow_run": _WORKFLOW_RUN,
    **dict.fromkeys(_PLAIN_EVENTS, _event()),
}
_EVENT_NAME = _choice("the name of an event, as push or pull_request", *_EVENTS)
_ON = Shape(
    "an event, a sequence of events, or a mapping of events to their filters",
    leaves=_EVENT_NAME.leaves,
    items=_EVENT_NAME,
    records=(Record({name: Key(shape) for name, shape in _EVENTS.items()}),),
)

# --- what workflows and jobs share ---

_SCOPES = (
    "actions", "artifact-metadata", "attestations", "checks", "contents", "deployments", "discussions", "id-token", "issues", "models",
    "organization-projects", "packages", "pages", "pull-requests", "repository-projects", "security-events", "statuses",
)  # fmt: skip
_PERMISSIONS = Shape(
    "read-all, write-all, or scopes with read, write or none",
    leaves=(Leaf(choices=("read-all", "write-all")),),
    records=(Record({scope: Key(_choice("read, write or none", "read", "write", "none")) for scope in _SCOPES}),),
)
_NO_TOKEN = "a job gets no token of the forge"  # noqa: S105 - a sentence


def _concurrency(at: Allowed) -> Shape:
    group = {
        "group": Key(_text("the name of a group", at, filled=True), required=True),
        "cancel-in-progress": Key(_boolean(at)),
        "queue": Key(_choice("single or max", "single", "max")),
    }
    return Shape(
        "the name of a group, or group and cancel-in-progress",
        leaves=(Leaf(Kind.FILLED, at),),
        records=(Record(group),),
    )


def _defaults(at: Allowed | None) -> Shape:
    run = {
        "shell": Key(_text("a shell", at, filled=True, placed=True)),
        "working-directory": Key(_text("a directory", at, filled=True, placed=True)),
    }
    return _record("defaults", {"run": Key(_record("shell and working-directory", run))})


# --- steps ---

_STEP_KEYS = {
    "id": Key(_text("an identifier", filled=True)),
    "name": Key(_text("a text", allowed.STEP)),
    "if": Key(_condition(allowed.STEP_IF)),
    "timeout-minutes": Key(_number("a number of minutes", allowed.STEP)),
    "continue-on-error": Key(_boolean(allowed.STEP)),
    "env": Key(_names("names with their values", allowed.STEP)),
}
_SEQUENTIAL = "steps that run one after the other"
_BACKGROUND = {"background": Key(_boolean(), missing=_SEQUENTIAL)}
_RUN_STEP = Record(
    {
        **_STEP_KEYS,
        "run": Key(_text("a script", allowed.STEP), required=True),
        "shell": Key(_text("a shell", allowed.STEP, filled=True)),
        "working-directory": Key(_text("a directory", allowed.STEP, filled=True)),
        **_BACKGROUND,
    }
)
_USES_STEP = Record(
    {
        **_STEP_KEYS,
        "uses": Key(_text("an action, as actions/checkout@v4", filled=True), required=True),
        "with": Key(_names("inputs with their values", allowed.STEP)),
        **_BACKGROUND,
    }
)
_PARALLEL = tuple(
    Record(
        {"name": Key(_text("a text", allowed.STEP)), name: Key(_ANYTHING, required=True, missing=_SEQUENTIAL)},
        offered=False,
    )
    for name in ("wait", "wait-all", "cancel", "parallel")
)
_STEPS = Shape(
    "a sequence of steps",
    items=Shape("a step: a mapping with run or uses", records=(_RUN_STEP, _USES_STEP, *_PARALLEL)),
)

# --- jobs ---

_MATRIX = Shape(
    "vectors by name, include, exclude",
    records=(Record(others=_anything(allowed.STRATEGY)),),
    expression=allowed.STRATEGY,
)
_STRATEGY = _record(
    "matrix, fail-fast, max-parallel",
    {
        "matrix": Key(_MATRIX),
        "fail-fast": Key(_boolean(allowed.STRATEGY)),
        "max-parallel": Key(_number("a number", allowed.STRATEGY)),
    },
)
_RUNS_ON = Shape(
    "a label or a sequence of labels",
    leaves=(Leaf(Kind.FILLED, allowed.JOB),),
    items=_text("a label", allowed.JOB, filled=True),
    records=(
        Record(
            {
                "group": Key(_text("a group", allowed.JOB), ignored="there are no groups of runners"),
                "labels": Key(_one_or_more("a label or a sequence of labels", allowed.JOB)),
            }
        ),
    ),
)
_ENVIRONMENT = Shape(
    "the name of an environment, or name and url",
    leaves=(Leaf(Kind.FILLED, allowed.JOB),),
    records=(
        Record(
            {
                "name": Key(_text("the name of an environment", allowed.JOB, filled=True), required=True),
                "url": Key(_text("an address", allowed.ENVIRONMENT_URL)),
                "deployment": Key(_boolean(allowed.JOB)),
            }
        ),
    ),
)
_MACHINE_ONLY = "a job that runs in the machine `runs-on` chooses"
_COMMON_JOB = {
    "name": Key(_text("a text", allowed.JOB)),
    "needs": Key(_one_or_more("a job or a sequence of jobs", placed=True)),
    "if": Key(_condition(allowed.JOB_IF)),
    "strategy": Key(_STRATEGY),
    "permissions": Key(_PERMISSIONS, ignored=_NO_TOKEN),
    "concurrency": Key(_concurrency(allowed.JOB)),
}
_STEPS_JOB = Record(
    {
        **_COMMON_JOB,
        "runs-on": Key(_RUNS_ON, required=True),
        "steps": Key(_STEPS),
        "env": Key(_names("names with their values", allowed.JOB_ENV)),
        "defaults": Key(_defaults(allowed.JOB_DEFAULTS)),
        "outputs": Key(_names("names with their values", allowed.JOB_OUTPUTS)),
        "timeout-minutes": Key(_number("a number of minutes", allowed.JOB)),
        "cancel-timeout-minutes": Key(_number("a number of minutes", allowed.JOB)),
        "continue-on-error": Key(_boolean(allowed.JOB)),
        "container": Key(_ANYTHING, missing=_MACHINE_ONLY),
        "services": Key(_ANYTHING, missing=_MACHINE_ONLY),
        "environment": Key(_ENVIRONMENT, ignored="there are no environments with rules or secrets of their own"),
        "snapshot": Key(_ANYTHING, missing=_MACHINE_ONLY),
    }
)
_CALL_JOB = Record(
    {
        **_COMMON_JOB,
        "uses": Key(_text("a workflow, as ./.github/workflows/x.yml", placed=True), required=True),
        "with": Key(_names("inputs with their values", allowed.CALL_WITH)),
        "secrets": Key(
            Shape(
                "inherit, or secrets by name",
                leaves=(Leaf(choices=("inherit",)),),
                records=_names("", allowed.CALL_SECRETS).records,
            )
        ),
    }
)
_JOBS = Shape(
    "jobs by name",
    records=(Record(others=Shape("a job: a mapping with runs-on and steps", records=(_STEPS_JOB, _CALL_JOB))),),
)

WORKFLOW = _record(
    "a workflow: a mapping with on and jobs",
    {
        "name": Key(_text("a text")),
        "run-name": Key(_text("a text", allowed.RUN_NAME)),
        "on": Key(_ON, required=True),
        "permissions": Key(_PERMISSIONS, ignored=_NO_TOKEN),
        "env": Key(_names("names with their values", allowed.WORKFLOW_ENV)),
        "defaults": Key(_defaults(None)),
        "concurrency": Key(_concurrency(allowed.WORKFLOW_CONCURRENCY)),
        "jobs": Key(_JOBS, required=True),
    },
)
