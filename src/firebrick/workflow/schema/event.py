"""The shape of `on`: every event, its filters, and what workflows that are called or dispatched take."""

from __future__ import annotations

from collections.abc import Mapping

from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.element import EMPTY, boolean, choice, one_or_more, primitive, record, text
from firebrick.workflow.schema.shape import Key, Record, Shape

_PATTERNS = one_or_more("a pattern or a sequence of patterns")


def _types(*activities: str) -> Key:
    """`types` of an event."""
    one = choice(f"one of {', '.join(activities)}", *activities)
    return Key(Shape("an activity type or a sequence of them", leaves=one.leaves, items=one))


def _filters(keys: Mapping[str, Key]) -> Shape:
    return Shape("filters of the event, or nothing", leaves=EMPTY, records=(Record(keys),))


def _patterns(*names: str) -> dict[str, Key]:
    return {name: Key(_PATTERNS) for name in names}


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
                "default": Key(primitive()),
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
        "default": Key(primitive(allowed.RUN_NAME)),
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
# What can happen to the thing an event is about; an event that is not here has no `types`.
_ACTIVITIES: Mapping[str, tuple[str, ...]] = {
    "branch_protection_rule": ("created", "edited", "deleted"),
    "check_run": ("created", "rerequested", "completed", "requested_action"),
    "check_suite": ("completed",),
    "discussion": (
        "created", "edited", "deleted", "transferred", "pinned", "unpinned", "labeled", "unlabeled", "locked", "unlocked",
        "category_changed", "answered", "unanswered",
    ),
    "discussion_comment": ("created", "edited", "deleted"),
    "issue_comment": ("created", "edited", "deleted"),
    "issues": (
        "opened", "edited", "deleted", "transferred", "pinned", "unpinned", "closed", "reopened", "assigned", "unassigned", "labeled",
        "unlabeled", "locked", "unlocked", "milestoned", "demilestoned", "field_added", "field_removed", "typed", "untyped",
    ),
    "label": ("created", "edited", "deleted"),
    "merge_group": ("checks_requested",),
    "milestone": ("created", "closed", "opened", "edited", "deleted"),
    "project": ("created", "closed", "reopened", "edited", "deleted"),
    "project_card": ("created", "moved", "converted", "edited", "deleted"),
    "project_column": ("created", "updated", "moved", "deleted"),
    "pull_request": (
        "assigned", "unassigned", "labeled", "unlabeled", "opened", "edited", "closed", "reopened", "synchronize", "converted_to_draft",
        "locked", "unlocked", "enqueued", "dequeued", "milestoned", "demilestoned", "ready_for_review", "review_requested",
        "review_request_removed", "auto_merge_enabled", "auto_merge_disabled", "stacked",
    ),
    "pull_request_review": ("submitted", "edited", "dismissed"),
    "pull_request_review_comment": ("created", "edited", "deleted"),
    "registry_package": ("published", "updated"),
    "release": ("published", "unpublished", "created", "edited", "deleted", "prereleased", "released"),
    "watch": ("started",),
    "workflow_run": ("completed", "requested", "in_progress"),
}  # fmt: skip
_SILENT = ("create", "delete", "deployment", "deployment_status", "fork", "gollum", "page_build", "public", "status")
_BRANCHES = _patterns("branches", "branches-ignore")
_PATHS = _patterns("paths", "paths-ignore")
_PULL_REQUEST = _filters({"types": _types(*_ACTIVITIES["pull_request"]), **_BRANCHES, **_PATHS})
_EVENTS: dict[str, Shape] = {
    **{name: _filters({"types": _types(*activities)}) for name, activities in _ACTIVITIES.items()},
    **dict.fromkeys(_SILENT, Shape("nothing", leaves=EMPTY)),
    "push": _filters({**_BRANCHES, **_patterns("tags", "tags-ignore"), **_PATHS}),
    "pull_request": _PULL_REQUEST,
    "pull_request_target": _PULL_REQUEST,
    "pull_request_comment": _filters({"types": _types(*_ACTIVITIES["issue_comment"])}),
    "image_version": _filters({"types": _types("created", "ready", "deleted"), **_patterns("names", "versions")}),
    "merge_group": _filters({"types": _types(*_ACTIVITIES["merge_group"]), **_BRANCHES}),
    "repository_dispatch": _filters({"types": Key(Shape("a sequence of types", items=text("a type", filled=True)))}),
    "schedule": _SCHEDULE,
    "workflow_dispatch": _DISPATCH,
    "workflow_call": _CALL,
    "workflow_run": _filters({"types": _types(*_ACTIVITIES["workflow_run"]), **_patterns("workflows"), **_BRANCHES}),
}
_EVENT_NAME = choice("the name of an event, as push or pull_request", *_EVENTS)
ON = Shape(
    "an event, a sequence of events, or a mapping of events to their filters",
    leaves=_EVENT_NAME.leaves,
    items=_EVENT_NAME,
    records=(Record({name: Key(shape) for name, shape in _EVENTS.items()}),),
)
