"""The shape of `on`: every event, its filters, and what workflows that are called or dispatched take."""

from __future__ import annotations

from firebrick.workflow import allowed
from firebrick.workflow.element import ANYTHING, EMPTY, boolean, choice, one_or_more, record, text
from firebrick.workflow.shape import Key, Kind, Leaf, Record, Shape

_PATTERNS = one_or_more("a pattern or a sequence of patterns")
_TYPES = Key(one_or_more("an activity type or a sequence of them"))


def _event(*filters: str) -> Shape:
    """An event with filters, or with nothing."""
    known = {name: Key(_PATTERNS) for name in filters} | {"types": _TYPES}
    return Shape("filters of the event, or nothing", leaves=EMPTY, records=(Record(known),))


_INPUT_TYPES = choice(
    "one of string, boolean, number, choice, environment", "string", "boolean", "number", "choice", "environment"
)
_DISPATCH_INPUT = Shape(
    "the description of an input",
    leaves=EMPTY,
    records=(
        Record(
            {
                "description": Key(text("a text")),
                "type": Key(_INPUT_TYPES),
                "required": Key(boolean()),
                "default": Key(ANYTHING),
                "deprecationMessage": Key(text("a text")),
                "options": Key(Shape("a sequence of texts", items=text("a text", filled=True))),
            }
        ),
    ),
)
_CALL_INPUT = record(
    "the description of an input",
    {
        "description": Key(text("a text")),
        "type": Key(choice("one of string, boolean, number", "string", "boolean", "number"), required=True),
        "required": Key(boolean()),
        "default": Key(Shape("a value", leaves=(Leaf(Kind.BOOLEAN), Leaf(Kind.NUMBER), Leaf(Kind.TEXT)))),
        "deprecationMessage": Key(text("a text")),
    },
)
_CALL_SECRET = Shape(
    "the description of a secret",
    leaves=EMPTY,
    records=(Record({"description": Key(text("a text")), "required": Key(boolean())}),),
)
_CALL_OUTPUT = record(
    "the description of an output",
    {"description": Key(text("a text")), "value": Key(text("a text", allowed.WORKFLOW_OUTPUT), required=True)},
)


def _each(what: str, shape: Shape) -> Key:
    return Key(Shape(what, leaves=EMPTY, records=(Record(others=shape),)))


_PUSH = _event("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore")
_PULL_REQUEST = _event("branches", "branches-ignore", "paths", "paths-ignore")
_DISPATCH = Shape(
    "inputs, or nothing", leaves=EMPTY, records=(Record({"inputs": _each("inputs by name", _DISPATCH_INPUT)}),)
)
_CALL = Shape(
    "inputs, secrets and outputs, or nothing",
    leaves=EMPTY,
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
    items=record(
        "a schedule",
        {"cron": Key(text("five fields of cron", filled=True), required=True), "timezone": Key(text("a time zone"))},
    ),
)
_WORKFLOW_RUN = Shape(
    "filters of the event",
    leaves=EMPTY,
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
_EVENT_NAME = choice("the name of an event, as push or pull_request", *_EVENTS)
ON = Shape(
    "an event, a sequence of events, or a mapping of events to their filters",
    leaves=_EVENT_NAME.leaves,
    items=_EVENT_NAME,
    records=(Record({name: Key(shape) for name, shape in _EVENTS.items()}),),
)
