import json
from pathlib import Path

import pytest

from firebrick.workflow.event.event import Event, pushed_paths
from firebrick.workflow.event.filter import decide
from firebrick.workflow.event.pattern import PatternError, parse_patterns
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow

LANGUAGE = Path(__file__).parents[3] / "scenarios" / "language"
CASES = [json.loads(line) for line in (LANGUAGE / "filters.jsonl").read_text().splitlines()]


def on(value):
    # JSON is YAML, and so a workflow is read as it would be from its file.
    text = json.dumps({"on": value, "jobs": {"a": {"runs-on": "x", "steps": [{"run": "x"}]}}})
    return read_workflow(text, "ci.yml").on


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_filters(case):
    changed = tuple(case["changed"]) if "changed" in case else None
    event = Event(name=case["event"], payload=case["payload"], changed_paths=changed)
    decision = decide(on(case["on"]), event)
    assert decision.starts is case["starts"], decision.reason
    assert case.get("reason", "") in decision.reason
    assert decision.reason.endswith(".")


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ({"push": {"branches": ["!x"]}}, "`branches` has only patterns that begin with '!', and so `push` never runs"),
        ({"push": {"tags": ["!x", "!y"]}}, "`tags` has only patterns"),
        ({"pull_request": {"paths": "!x"}}, "`paths` has only patterns"),
        (
            {"push": {"branches": ["x"], "branches-ignore": ["y"]}},
            "you may only define one of `branches` and `branches-ignore` for a single event",
        ),
        ({"push": {"paths": ["x"], "paths-ignore": ["y"]}}, "you may only define one of `paths` and `paths-ignore`"),
        ({"push": {"tags": ["v[0-9"]}}, "Invalid pattern 'v[0-9'. A '[' is not closed"),
        ({"push": {"tags": ["v[]"]}}, "The brackets '[]' hold no character"),
        ({"push": {"tags-ignore": ["v[9-0]"]}}, "The range '9-0' is the wrong way round"),
        ({"push": {"branches": ["x" * 1025]}}, "A pattern may have at most 1024 characters"),
        ({"push": {"branches": ["x", "!"]}}, "A pattern may not be empty"),
        ({"push": {"branches": ["x" * 1000] * 17}}, "`branches` has more than 16384 characters of patterns"),
        ({"schedule": [{"cron": "61 * * * *"}]}, "Invalid cron expression. Expected format: '* * * * *'"),
        ({"schedule": [{"cron": "1 * * * *", "timezone": "Mars"}]}, "Invalid timezone 'Mars'"),
    ],
)
def test_mistakes_of_filters(written, mistake):
    with pytest.raises(WorkflowError) as raised:
        on(written)
    (problem,) = raised.value.errors
    assert mistake in problem.message
    assert problem.position.line == 1


def test_mistakes_have_places():
    text = (
        "on:\n  push:\n    branches: ['!x']\n  schedule:\n    - cron: '* *'\njobs: {a: {runs-on: x, steps: [run: x]}}\n"
    )
    with pytest.raises(WorkflowError) as raised:
        read_workflow(text, "ci.yml")
    assert [(problem.line, problem.column) for problem in raised.value.errors] == [(3, 5), (5, 7)]


@pytest.mark.parametrize(
    ("name", "payload", "ref", "sha"),
    [
        ("push", {"ref": "refs/heads/x", "after": "abc"}, "refs/heads/x", "abc"),
        ("pull_request", {"number": 3, "pull_request": {"merge_commit_sha": "m"}}, "refs/pull/3/merge", "m"),
        ("pull_request_target", {"pull_request": {"base": {"ref": "main", "sha": "b"}}}, "refs/heads/main", "b"),
        ("merge_group", {"merge_group": {"head_ref": "refs/heads/q", "head_sha": "h"}}, "refs/heads/q", "h"),
        ("release", {"release": {"tag_name": "v1"}}, "refs/tags/v1", ""),
        ("create", {"ref": "v1", "ref_type": "tag"}, "refs/tags/v1", ""),
        ("create", {"ref": "dev", "ref_type": "branch"}, "refs/heads/dev", ""),
        ("delete", {"ref": "dev", "repository": {"default_branch": "main"}}, "refs/heads/main", ""),
        ("workflow_dispatch", {"ref": "refs/heads/dev"}, "refs/heads/dev", ""),
        ("issues", {"repository": {"default_branch": "main"}}, "refs/heads/main", ""),
        ("issues", {}, "", ""),
        ("pull_request", {"number": "3", "pull_request": []}, "", ""),
    ],
)
def test_what_a_run_of_an_event_works_on(name, payload, ref, sha):
    event = Event(name=name, payload=payload)
    assert (event.ref, event.sha) == (ref, sha)


def test_paths_of_a_push():
    assert pushed_paths({}) is None
    commits = [{"added": ["a"], "modified": ["b"]}, {"removed": ["c", 1], "modified": ["b"]}, "x", {"added": None}]
    assert pushed_paths({"commits": commits}) == ("a", "b", "c")


def test_patterns_of_a_list():
    patterns = parse_patterns(["a*", "!ab*", "abc", "x?", "!**/y", "z/**/y"])
    expected = {"a": 1, "ab": 0, "abc": 1, "abcd": 0, "b": 0, "": 1, "x": 1, "y": 0, "a/y": 0, "z/y": 1, "z/q/y": 1}
    assert {text: patterns.takes(text) for text in expected} == {text: bool(taken) for text, taken in expected.items()}
    assert parse_patterns([]).takes("a") is False
    for text in ("", "x" * 1025, "["):
        with pytest.raises(PatternError):
            parse_patterns([text])
    with pytest.raises(PatternError, match="16384 characters together"):
        parse_patterns(["x" * 1000] * 17)


def test_a_change_of_very_many_files_is_one_of_any_path():
    filters = on({"push": {"paths": ["src/**"]}})
    payload = {"ref": "refs/heads/main", "after": "a" * 40}
    few = Event(name="push", payload=payload, changed_paths=("doc/" + "x" * 100,) * 100)
    many = Event(name="push", payload=payload, changed_paths=("doc/" + "x" * 100,) * 3000)
    assert [decide(filters, event).starts for event in (few, many)] == [False, True]
