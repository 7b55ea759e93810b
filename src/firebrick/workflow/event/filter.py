"""Does an event start a workflow? The answer says why, in words.

`decide` asks the filters of `on` in the order GitHub documents: the event itself, its activity type, branches or tags, paths. `check_events` finds
what is wrong with filters when the file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from firebrick.workflow.event.cron import CronError, parse_cron
from firebrick.workflow.event.event import Event, text_at
from firebrick.workflow.event.inputs import MAX_DISPATCH_INPUTS
from firebrick.workflow.event.pattern import MAX_LIST, PatternError, Patterns, parse_pattern, parse_patterns
from firebrick.workflow.expression.value import fold
from firebrick.workflow.problem import Position
from firebrick.workflow.schema.shape import Fields

# Without `types` these start a workflow; of other events every activity does.
_DEFAULT_TYPES = {
    "pull_request": ("opened", "synchronize", "reopened"),
    "pull_request_target": ("opened", "synchronize", "reopened"),
}
# So many characters of changed paths are looked at; a larger change is one of any path, as at GitHub where finding it out takes too long.
MAX_PATHS = 1 << 18
_FILTERS = ("branches", "tags", "paths")
_WITH_BRANCHES = frozenset({"push", "pull_request", "pull_request_target", "workflow_run", "merge_group"})


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the event starts the workflow; `reason` is a sentence that says why it does or does not."""

    starts: bool
    reason: str


def decide(on: Mapping[str, object], event: Event) -> Decision:
    """`on` is that of a `Workflow`, whose filters were checked when it was read."""
    if event.name not in on or event.name == "workflow_call":
        events = ", ".join(on)
        return Decision(False, f"The workflow does not run on {event.name}: its events are {events}.")
    filters = on[event.name]
    if event.name == "schedule":
        return _decide_schedule(filters, event)
    named = filters if isinstance(filters, Mapping) else {}
    for ask in (_of_push, _of_type, _of_workflow, _of_ref, _of_paths):
        refusal = ask(named, event)
        if refusal:
            return Decision(False, refusal)
    return Decision(True, f"The event {event.name} passes every filter the workflow has for it.")


def _of_push(_: Mapping[str, object], event: Event) -> str:
    if event.deletes:
        return f"The push deleted {text_at(event.payload, 'ref')}: there is nothing left to run on."
    if words := event.skip_words:
        return f"The message of the pushed commit says {words}."
    return ""


def _of_type(filters: Mapping[str, object], event: Event) -> str:
    types = _several(filters.get("types")) or _DEFAULT_TYPES.get(event.name, ())
    if not types or fold(event.action) in {fold(one) for one in types}:
        return ""
    default = "" if filters.get("types") else ", which are those of an event without `types`"
    return f"The activity '{event.action}' is none of {', '.join(types)}{default}."


def _of_workflow(filters: Mapping[str, object], event: Event) -> str:
    names = _several(filters.get("workflows"))
    name = text_at(event.payload, "workflow_run", "name") or text_at(event.payload, "workflow", "name")
    if event.name != "workflow_run" or not names or name in names:
        return ""
    return f"The workflow that ran, '{name}', is none of {', '.join(names)}."


def _of_ref(filters: Mapping[str, object], event: Event) -> str:
    if event.name not in _WITH_BRANCHES:
        return ""
    if event.tag:
        return _of_kind(filters, "tags", "branches", event.tag)
    refusal = _of_kind(filters, "branches", "tags", event.target)
    if refusal and not event.target:
        return "The event names neither a branch nor a tag, and the workflow has filters for them."
    return refusal


def _of_kind(filters: Mapping[str, object], kind: str, other: str, name: str) -> str:
    """A ref of one kind, branch or tag: filters for the other kind alone mean that this kind does not count."""
    one = {"branches": "branch", "tags": "tag"}[kind]
    mine, ignored = filters.get(kind), filters.get(f"{kind}-ignore")
    if mine is None and ignored is None:
        others = filters.get(other) is not None or filters.get(f"{other}-ignore") is not None
        return f"The workflow has filters for {other} only, and '{name}' is a {one}." if others else ""
    if mine is not None and not _patterns(mine).takes(name):
        return f"The {one} '{name}' is not of `{kind}`: {', '.join(_several(mine))}."
    if ignored is not None and _patterns(ignored).takes(name):
        return f"The {one} '{name}' is of `{kind}-ignore`: {', '.join(_several(ignored))}."
    return ""


def _of_paths(filters: Mapping[str, object], event: Event) -> str:
    if event.tag or event.changed_paths is None or sum(map(len, event.changed_paths)) > MAX_PATHS:
        return ""
    count = f"{len(event.changed_paths)} changed file{'' if len(event.changed_paths) == 1 else 's'}"
    if (wanted := filters.get("paths")) is not None:
        patterns = _patterns(wanted)
        if not any(patterns.takes(path) for path in event.changed_paths):
            return f"None of {count} is of `paths`: {', '.join(_several(wanted))}."
    if (ignored := filters.get("paths-ignore")) is not None:
        patterns = _patterns(ignored)
        if all(patterns.takes(path) for path in event.changed_paths):
            return f"Every one of {count} is of `paths-ignore`: {', '.join(_several(ignored))}."
    return ""


def _decide_schedule(filters: object, event: Event) -> Decision:
    """The payload names the schedule that was due."""
    known = [
        text_at(entry, "cron")
        for entry in (filters if isinstance(filters, tuple) else ())
        if isinstance(entry, Mapping)
    ]
    due = text_at(event.payload, "schedule")
    if not due or due in known:
        return Decision(True, f"The schedule '{due or known[0]}' is due." if known or due else "A schedule is due.")
    return Decision(False, f"The schedule '{due}' is none of the workflow's: {', '.join(known)}.")


def _several(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, tuple) else ()


def _patterns(value: object) -> Patterns:
    return parse_patterns(_several(value))


# --- when a file is read ---

Report = Callable[[Position, str, str], None]


def check_events(on: object, report: Report) -> None:
    """Report what is wrong with the filters and schedules of `on` as it was read: lists that exclude each other, take nothing, or cannot be read."""
    if not isinstance(on, Fields):
        return
    for name, filters in on.items():
        if isinstance(filters, Fields):
            for kind in _FILTERS:
                _check_filter(name, kind, filters, report)
            _check_count(filters.get("inputs") if name == "workflow_dispatch" else None, report)
        elif name == "schedule" and isinstance(filters, tuple):
            _check_schedules(filters, report)


def _check_count(inputs: object, report: Report) -> None:
    if isinstance(inputs, Fields) and len(inputs.places) > MAX_DISPATCH_INPUTS:
        message = f"you may only define up to {MAX_DISPATCH_INPUTS} `inputs` for a `workflow_dispatch` event"
        report(inputs.position, message, "")


def _check_filter(event: str, kind: str, filters: Fields, report: Report) -> None:
    wanted, ignored = filters.get(kind), filters.get(f"{kind}-ignore")
    if wanted is not None and ignored is not None:
        place = max(filters.places[kind], filters.places[f"{kind}-ignore"])
        message = f"you may only define one of `{kind}` and `{kind}-ignore` for a single event"
        report(place, message, f"`{kind}` with patterns that begin with '!' for what `{event}` shall not run on")
    for key, texts in ((kind, _several(wanted)), (f"{kind}-ignore", _several(ignored))):
        if sum(map(len, texts)) > MAX_LIST:
            report(filters.places[key], f"`{key}` has more than {MAX_LIST} characters of patterns", "fewer patterns")
        for text in texts:
            _check_pattern(text, filters.places[key], report)
    texts = _several(wanted)
    if texts and all(text.startswith("!") for text in texts):
        message = f"`{kind}` has only patterns that begin with '!', and so `{event}` never runs"
        report(filters.places[kind], message, f"at least one pattern without '!', or `{kind}-ignore`")


def _check_pattern(text: str, place: Position, report: Report) -> None:
    try:
        parse_pattern(text)
    except PatternError as error:
        report(place, f"Invalid pattern '{text[:100]}'. {error}", "")


def _check_schedules(schedules: Iterable[object], report: Report) -> None:
    for schedule in schedules:
        if isinstance(schedule, Fields) and isinstance(schedule.get("cron"), str):
            try:
                parse_cron(schedule["cron"], schedule.get("timezone") or "UTC")
            except CronError as error:
                key = "timezone" if "timezone" in str(error) else "cron"
                report(schedule.places.get(key, schedule.position), str(error), error.expected)
