from __future__ import annotations

import pytest

from firebrick.results.scope import Scopes, scopes_of

DEFAULT = {"repository": {"default_branch": "main"}}
PULL = {"pull_request": {"base": {"ref": "release"}, "head": {"ref": "main"}}, **DEFAULT}
MAIN, RELEASE, MERGE = "refs/heads/main", "refs/heads/release", "refs/pull/7/merge"


@pytest.mark.parametrize(
    ("event_name", "ref", "event", "scopes"),
    [
        ("push", MAIN, DEFAULT, Scopes((MAIN,), MAIN)),
        ("push", RELEASE, DEFAULT, Scopes((RELEASE, MAIN), RELEASE)),
        ("push", "refs/tags/v1", DEFAULT, Scopes(("refs/tags/v1", MAIN), "refs/tags/v1")),
        ("push", "", {}, Scopes(("no-ref",), "no-ref")),
        ("schedule", MAIN, {}, Scopes((MAIN,), MAIN)),
        ("pull_request", MERGE, PULL, Scopes((MERGE, RELEASE, MAIN), MERGE)),
        # Whatever the ref is said to be: a run for a pull request writes nothing a branch reads.
        ("pull_request", MAIN, PULL, Scopes((MAIN, RELEASE), None)),
        ("pull_request_target", RELEASE, PULL, Scopes((RELEASE, MAIN), None)),
        ("pull_request_target", MERGE, PULL, Scopes((MERGE, RELEASE, MAIN), None)),
        ("push", MAIN, PULL, Scopes((MAIN, RELEASE), None)),
        ("issue_comment", MAIN, DEFAULT, Scopes((MAIN,), None)),
        # What an event holds is what somebody sent.
        ("push", MAIN, {"repository": "x", "pull_request": []}, Scopes((MAIN,), MAIN)),
        ("push", RELEASE, {"repository": {"default_branch": 7}}, Scopes((RELEASE,), RELEASE)),
        ("push", RELEASE, {"repository": {"default_branch": MAIN}}, Scopes((RELEASE, MAIN), RELEASE)),
    ],
)
def test_what_a_run_reads_and_writes(event_name: str, ref: str, event: dict[str, object], scopes: Scopes):
    assert scopes_of(event_name, ref, event) == scopes
