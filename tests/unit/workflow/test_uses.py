"""What `uses` names, and what it must not be able to name."""

import pytest

from firebrick.workflow.uses import DockerImage, LocalAction, RemoteAction, UsesError, parse_uses

COMMIT = "a1" * 20


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("actions/checkout@v4", RemoteAction("actions", "checkout", "", "v4")),
        ("o/r/a/b@releases/v1", RemoteAction("o", "r", "a/b", "releases/v1")),
        ("o/r/a/@v1", RemoteAction("o", "r", "a", "v1")),
        (f"o/r.name@{COMMIT}", RemoteAction("o", "r.name", "", COMMIT)),
        ("./a/b", LocalAction("./a/b")),
        ("./", LocalAction("./")),
        ("docker://alpine:3", DockerImage("alpine:3")),
    ],
)
def test_what_is_named(text, found):
    assert parse_uses(text) == found
    assert parse_uses(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "checkout", "checkout@v4", "actions/checkout", "actions/checkout@", "@v4", "/r@v1", "o/@v1"),
        *("../a", "../o/r@v1", "o/..@v1", "./../o@v1"[2:], "o/r/../../x@v1", "o/r/./x@v1", "o/r/a//b@v1", "o/r@v 1"),
        *(
            "o/r\n@v1",
            "o/r@v1\n",
            "ö/r@v1",
            "o\\r@v1",
            "o/r/a\\b@v1",
            "https://host/o/r@v1",
            "docker://",
            f"{'o' * 200}/r@v1",
        ),
    ],
)
def test_what_names_nothing(text):
    with pytest.raises(UsesError) as raised:
        parse_uses(text)
    assert str(raised.value) == f"Expected format {{org}}/{{repo}}[/path]@ref. Actual '{text}'"


def test_a_commit_is_a_pin_and_a_short_one_is_none():
    pinned = [parse_uses(f"o/r@{ref}").is_pinned for ref in (COMMIT, COMMIT.upper(), COMMIT[:10], "v1")]
    assert pinned == [True, True, False, False]
