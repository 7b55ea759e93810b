"""Patterns, schedules and matrices against naive accounts of the same rules; and time in proportion to what is given."""

import contextlib
import itertools
import re
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.workflow.event.cron import parse_cron
from firebrick.workflow.event.event import Event
from firebrick.workflow.event.filter import decide
from firebrick.workflow.event.inputs import Input, InputError, call_inputs, dispatch_inputs
from firebrick.workflow.event.pattern import PatternError, parse_patterns
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.expression.value import equals
from firebrick.workflow.matrix import expand_matrix
from firebrick.workflow.reference import TargetError, parse_target

QUIET = settings(deadline=None, derandomize=True)

pieces = st.sampled_from(
    ["a", "b", "/", "*", "**", "**/", "/**/", "?", "+", "[ab]", "[a-b]", ".", "\\*", "[b]+", "a?", "/**"]
)
patterns = st.lists(pieces, min_size=1, max_size=7).map("".join)
texts = st.text(alphabet="ab/.*", max_size=8)


def oracle(pattern: str) -> str:
    """The pattern as a regular expression, piece by piece."""
    found, at, out = None, 0, []
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
            # A quantifier after this is one of the slash alone; the generator makes none that matter, see below.
            found = None
            continue
        if pattern[at] == "*":
            end = at
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            out.append("[^/]*" if end - at == 1 else ".*")
            found, at = "star", end
            continue
        if pattern[at] in "?+" and out:
            if found != "star":
                out[-1] = f"(?:{out[-1]}){pattern[at]}"
            at += 1
            continue
        if pattern[at] == "[":
            end = pattern.index("]", at)
            out.append(pattern[at : end + 1])
            at = end + 1
        elif pattern[at] == "\\" and at + 1 < len(pattern):
            out.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            out.append(re.escape(pattern[at]))
            at += 1
        found = "one"
    return "".join(out)


@settings(QUIET, max_examples=1500)
@given(patterns, texts)
def test_patterns_match_as_their_pieces_say(pattern, text):
    # A quantifier behind `**/` would be one of its slash; nobody writes that, and the two accounts may differ there.
    if re.search(r"(?:^|/)\*\*/[?+]", pattern):
        return
    expected = re.fullmatch(oracle(pattern), text, re.DOTALL) is not None
    assert parse_patterns([pattern]).takes(text) is expected, (pattern, text)


@settings(QUIET, max_examples=600)
@given(st.lists(st.tuples(st.booleans(), patterns), min_size=1, max_size=5), texts)
def test_of_a_list_the_last_pattern_that_matches_decides(written, text):
    written = [(negated, each) for negated, each in written if not re.search(r"(?:^|/)\*\*/[?+]", each)]
    expected = False
    for negated, each in written:
        if re.fullmatch(oracle(each), text, re.DOTALL):
            expected = not negated
    together = parse_patterns([f"!{each}" if negated else each for negated, each in written])
    assert together.takes(text) is expected, (written, text)


@QUIET
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_or_said_not_to_be(pattern, text):
    with contextlib.suppress(PatternError):
        assert parse_patterns([pattern]).takes(text) in {True, False}


def test_hostile_patterns_take_no_time():
    began = time.perf_counter()
    for pattern in ("a?" * 500, "**a" * 340, "*a" * 500, "[a-z]+" * 170, "**/" * 341, "**/a/" * 200, "a+?" * 340):
        compiled = parse_patterns([pattern] * 15)
        assert compiled.takes("a" * 20_000 + "!") is False
        assert compiled.takes("a/" * 10_000 + "!") is False
    assert time.perf_counter() - began < 10


@settings(QUIET, max_examples=60)
@given(
    st.sampled_from(["*", "*/7", "0", "1-40/13", "5,50", "59"]),
    st.sampled_from(["*", "*/5", "3", "22-23", "0,2"]),
    st.sampled_from(["*", "1", "31", "*/9", "13,14"]),
    st.sampled_from(["*", "2", "3-4", "OCT"]),
    st.sampled_from(["*", "0", "MON-WED", "*/4", "FRI"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 60 * 24 * 80),
)
def test_schedules_are_due_when_minute_after_minute_says(minute, hour, day, month, weekday, zone, start):
    if (day, month) == ("31", "2"):
        return  # never
    cron = parse_cron(f"{minute} {hour} {day} {month} {weekday}", zone)
    moment = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(minutes=start)
    due = cron.next_after(moment)
    assert due is not None
    assert due > moment
    local = ZoneInfo(zone)
    for step in range(1, 60 * 24 * 2):
        at = moment + timedelta(minutes=step)
        if at >= due:
            break
        wall = at.astimezone(local)
        fits = (
            wall.minute in cron.minutes
            and wall.hour in cron.hours
            and wall.month in cron.months
            and _day_fits(cron, wall)
        )
        # Not due in between, unless the clocks show this time once more.
        assert not fits or wall.fold == 1
    wall = due.astimezone(local)
    if wall.minute in cron.minutes and wall.hour in cron.hours:
        assert _day_fits(cron, wall)


def _day_fits(cron, wall):
    by_date, by_weekday = wall.day in cron.days, wall.isoweekday() % 7 in cron.weekdays
    return by_date and by_weekday if cron.any_day or cron.any_weekday else by_date or by_weekday


scalars = st.sampled_from([0, 1, 1.5, True, False, None, "", "a", "A", "1"])
names = st.sampled_from(["x", "y", "z"])
entries = st.dictionaries(names, scalars, max_size=3)


def brute(vectors, exclude, include):
    """The documented rules, one after the other."""
    original = [dict(zip(vectors, values, strict=True)) for values in itertools.product(*vectors.values())]
    original = [c for c in original if not any(all(equals(v, c[k]) for k, v in e.items()) for e in exclude)]
    jobs = [dict(c) for c in original]
    extra = []
    for entry in include:
        hit = False
        for index in range(len(jobs)):
            if not any(k in original[index] and not equals(original[index][k], v) for k, v in entry.items()):
                jobs[index] |= {k: v for k, v in entry.items() if k not in original[index]}
                hit = True
        if not hit:
            extra.append(dict(entry))
    return jobs + extra


@settings(QUIET, max_examples=400)
@given(
    st.dictionaries(names, st.lists(scalars, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(entries, max_size=3),
    st.lists(entries, max_size=4),
)
def test_a_matrix_is_what_its_rules_say(vectors, exclude, include):
    exclude = [kept for entry in exclude if (kept := {k: v for k, v in entry.items() if k in vectors})]
    include = [entry for entry in include if entry]
    expected = brute(vectors, exclude, include)
    if not expected:
        return
    found = expand_matrix({**vectors, "exclude": exclude, "include": include})
    assert [each.values for each in found] == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@QUIET
@given(
    st.sampled_from(["push", "pull_request", "workflow_run", "merge_group", "schedule", "release", "create"]),
    st.dictionaries(
        st.sampled_from(
            ["ref", "action", "after", "pull_request", "workflow_run", "head_commit", "number", "schedule"]
        ),
        values,
    ),
)
def test_no_payload_is_a_crash(name, payload):
    event = Event(name=name, payload=payload, changed_paths=("a",))
    assert decide({name: None}, event).reason
    assert isinstance(event.ref, str)
    assert isinstance(event.sha, str)


@QUIET
@given(st.sampled_from(["string", "boolean", "number", "choice", "environment"]), values)
def test_no_input_is_a_crash(kind, value):
    one = Input(name="x", type=kind, options=("a",))
    with contextlib.suppress(InputError):
        assert isinstance(dispatch_inputs([one], {"x": value}).texts["x"], str)
    if kind in {"string", "boolean", "number"}:
        with contextlib.suppress(InputError):
            assert call_inputs([one], {"x": value}, Scope()).keys() == {"x"}


@QUIET
@given(st.text(max_size=40))
def test_no_reference_leads_out(text):
    try:
        target = parse_target(text)
    except TargetError:
        return
    assert ".." not in target.path.split("/")
    assert target.path.startswith((".github/workflows/", ".forgejo/workflows/", ".gitea/workflows/"))
