"""What is typed for a server and cannot reach it: told, and not taken for something else."""

from __future__ import annotations

import pytest

from firebrick.cli.approve import approve
from firebrick.cli.errors import UsageError
from firebrick.cli.rerun import rerun


@pytest.mark.parametrize("words", [{"reject": True}, {"comment": "no"}])
def test_a_decision_needs_its_environment(words: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="which environment of build_1") as raised:
        approve("build_1", **words)  # type: ignore[arg-type]
    assert "firebrick approve build_1" in raised.value.hint


@pytest.mark.parametrize(
    ("given", "option"),
    [({"secret": ["A=b"]}, "--secret"), ({"keep": "never"}, "--keep"), ({"jail": False}, "--jail")],
)
def test_what_the_server_decides_is_refused(given: dict[str, object], option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} has no effect on a build of a server"):
        rerun("build_1", server="http://127.0.0.1:1", **given)  # type: ignore[arg-type]
