"""Which templates go: those of who has most of them, and never what is somebody else's too."""

from pathlib import Path

import pytest

from firebrick.node.pool.quota import Use, beyond, note_user, use_of


def template(name: str, at: float, *users: str) -> Use:
    return Use(Path(name), at, frozenset(users))


def gone(templates: list[Use], most: int, spared: str) -> list[str]:
    return [each.path.name for each in beyond(templates, most, spared=Path(spared))]


def test_what_is_within_the_limit_stays() -> None:
    assert gone([template("a", 1, "x"), template("b", 2, "x")], 2, "b") == []


@pytest.mark.parametrize("most", [0, 1])
def test_the_newest_stays_whatever_the_limit(most: int) -> None:
    assert gone([template("a", 2, "x"), template("b", 1, "x")], most, "b") == ["a"]


def test_a_repository_pushes_out_its_own() -> None:
    flood = [template(f"f{number}", 100 + number, "flood") for number in range(5)]
    quiet = [template("q1", 1, "quiet"), template("q2", 2, "quiet")]
    assert gone([*quiet, *flood], 4, "f4") == ["f0", "f1", "f2"]


def test_what_is_common_is_not_the_floods() -> None:
    flood = [template(f"f{number}", 100 + number, "flood") for number in range(3)]
    common = template("common", 1, "flood", "quiet")
    assert gone([common, *flood], 3, "f2") == ["f0"]


def test_among_equals_what_few_use_and_then_what_nobody_has_used_for_longest() -> None:
    templates = [template("both", 1, "x", "y"), template("x", 3, "x"), template("y", 2, "y"), template("new", 9, "z")]
    assert gone(templates, 3, "new") == ["y"]


def test_what_nobody_uses_goes_by_its_time() -> None:
    assert gone([template("a", 1), template("b", 2), template("c", 3)], 1, "c") == ["a", "b"]


def test_users_are_noted_once_and_only_so_many(tmp_path: Path) -> None:
    for _ in range(2):
        note_user(tmp_path, "owner/name")
    assert len(use_of(tmp_path).users) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["users"]
    for number in range(20):
        note_user(tmp_path, f"other \udcff {number}")
    assert len(use_of(tmp_path).users) == 8


def test_no_user_is_noted_where_it_is_nobodys_job_or_cannot_be(tmp_path: Path) -> None:
    note_user(tmp_path, "")
    assert list(tmp_path.iterdir()) == []
    note_user(tmp_path / "gone", "owner/name")
    assert use_of(tmp_path / "gone").users == frozenset()
    (tmp_path / "users").write_bytes(b"\xff" * 5000)
    assert use_of(tmp_path).users == frozenset()
