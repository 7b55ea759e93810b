"""The directory of a build is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.forge.address import Credential
from firebrick.home import Home
from firebrick.node.event import Conclusion
from firebrick.server.artifact import Artifact, Manifest, write_manifest
from firebrick.server.place import Place
from firebrick.server.record import Outcome
from firebrick.tree import remove as remove_tree
from firebrick.workflow.outcome import JobOutcome


def test_where_the_credential_cannot_be_written_nothing_is_left(tmp_path: Path) -> None:
    place = Place(Home(tmp_path), "build_1")
    with pytest.raises(UnicodeEncodeError):
        place.create(Credential("me", "\ud800"))
    assert not place.root.exists()
    place.create(Credential("me", "s3cret"))
    assert place.credential() == Credential("me", "s3cret")


def test_any_outcome_can_be_kept(tmp_path: Path) -> None:
    place = Place(Home(tmp_path), "build_1")
    place.create(None)
    place.keep_outcome(1, Outcome(Conclusion.FAILURE, "half \ud800, nul \0", "hint \udfff"))
    assert place.kept_outcome(1) == Outcome(Conclusion.FAILURE, "half \ufffd, nul \ufffd", "hint \ufffd")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def ended(**jobs: str) -> dict[str, JobOutcome]:
    return {key: JobOutcome(result, {"of": key}) for key, result in jobs.items()}


def with_artifact(home: Home, build_id: str, **jobs: str) -> Place:
    """A build that has left an artifact and how its jobs ended."""
    place = Place(home, build_id)
    place.create(None, payload=b'{"ref": "x"}')
    (place.artifacts / "out").mkdir(parents=True)
    (place.artifacts / "out" / "a").write_text("content")
    artifact = Artifact(path="out/a", size=7, sha256="0" * 64, name="out", job="build")
    manifest = Manifest(
        build_id=build_id, repo_url="r", branch="b", commit="c", created_at="", total_size=7, artifacts=(artifact,)
    )
    write_manifest(place.manifest, manifest)
    place.keep_jobs(ended(**jobs))
    return place


def test_what_is_parked_is_there_for_the_next_attempt_alone(home: Home) -> None:
    place = with_artifact(home, "build_1", build="success", bad="failure", deploy="waiting")
    for _ in range(2):  # killed behind it, it is done again
        place.park()
    place.clear_attempt()
    earlier = place.earlier()
    assert earlier.jobs == ended(build="success", bad="failure")
    assert [(file.job, file.path) for file in earlier.files] == [("build", "out/a")]
    assert (earlier.directory / "out" / "a").read_text() == "content"
    place.forget_inputs()
    assert (dict(place.earlier().jobs), list(place.earlier().files)) == ({}, [])
    assert sorted(path.name for path in place.root.iterdir()) == ["event.json"]


def test_another_attempt_takes_over_what_did_not_fail(home: Home) -> None:
    before = with_artifact(home, "build_1", build="success", bad="failure", after="skipped", cut="cancelled")
    place = before.beside("build_2")
    place.create(None, before.payload(), before)
    assert place.earlier().jobs == ended(build="success", after="skipped")
    assert place.payload() == b'{"ref": "x"}'
    before.remove()
    assert (place.earlier().directory / "out" / "a").read_text() == "content"


def test_what_cannot_be_taken_over_leaves_nothing(home: Home) -> None:
    before = with_artifact(home, "build_1", build="success")
    remove_tree(before.artifacts)
    place = before.beside("build_2")
    with pytest.raises(OSError, match="artifacts"):
        place.create(None, None, before)
    assert not place.root.exists()
    never = Place(home, "build_3")
    never.create(None)
    place.create(None, None, never)
    assert dict(place.earlier().jobs) == {}
