"""What is fetched for a ref, and where it is in the workspace."""

from __future__ import annotations

import pytest

from firebrick.forge.errors import RefError
from firebrick.node.checkout.point import (
    ALL_BRANCHES,
    ALL_TAGS,
    Point,
    candidates,
    found_point,
    own_point,
    whole_history,
)

COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("point", "refspec", "kept_at", "branch"),
    [
        (Point("refs/heads/a/b"), "+refs/heads/a/b:refs/remotes/origin/a/b", "refs/remotes/origin/a/b", "a/b"),
        (Point("refs/heads/a", COMMIT), f"+{COMMIT}:refs/remotes/origin/a", "refs/remotes/origin/a", "a"),
        (Point("refs/tags/v1"), "+refs/tags/v1:refs/tags/v1", "refs/tags/v1", ""),
        (Point("refs/pull/7/merge"), "+refs/pull/7/merge:refs/remotes/pull/7/merge", "refs/remotes/pull/7/merge", ""),
        (Point("refs/notes/x", COMMIT), f"+{COMMIT}:refs/notes/x", "refs/notes/x", ""),
        (Point(commit=COMMIT), COMMIT, "", ""),
    ],
)
def test_points(point: Point, refspec: str, kept_at: str, branch: str) -> None:
    assert (point.refspec, point.kept_at, point.branch) == (refspec, kept_at, branch)


@pytest.mark.parametrize(
    ("ref", "point"),
    [
        ("refs/heads/main", Point("refs/heads/main", COMMIT)),
        ("main", Point("refs/heads/main", COMMIT)),
        ("refs/pull/7/merge", Point("refs/pull/7/merge", COMMIT)),
        *((ref, Point(commit=COMMIT)) for ref in ("", "b" * 40, "a..b", "refs/heads/", "refs/heads/a.lock", "x\ny")),
    ],
)
def test_the_point_of_a_run(ref: str, point: Point) -> None:
    assert own_point(ref, COMMIT) == point


def test_what_a_name_may_be_short_for() -> None:
    assert candidates("x", follows=False) == ("refs/heads/x", "refs/tags/x")
    assert candidates("x", follows=True) == ("refs/heads/x", "refs/remotes/origin/x", "refs/tags/x")
    assert candidates("refs/heads/x", follows=True) == ("refs/heads/x", "refs/remotes/origin/x")
    assert candidates("refs/tags/x", follows=True) == ("refs/tags/x",)
    for ref in ("--upload-pack=x", "a b", "a:b", "x*", ""):
        with pytest.raises(RefError):
            candidates(ref, follows=False)


def test_found_points() -> None:
    assert found_point("refs/remotes/origin/x", COMMIT, follows=True) == Point("refs/heads/x", COMMIT)
    assert found_point("refs/heads/x", COMMIT, follows=False) == Point("refs/heads/x")
    assert found_point("refs/tags/x", COMMIT, follows=True) == Point("refs/tags/x")


def test_own_branches_come_before_those_of_the_origin() -> None:
    origin = "refs/remotes/origin/"
    refs = [f"refs/heads/{name}" for name in ("main", "a/b")]
    refs += [f"{origin}{name}" for name in ("HEAD", "main", "a", "a/b/c", "a/c", "far")]
    assert whole_history([*refs, "refs/tags/v1", "refs/stash"]) == [
        *(ALL_BRANCHES, ALL_TAGS),
        *(f"+{origin}{name}:{origin}{name}" for name in ("a/c", "far")),
    ]
