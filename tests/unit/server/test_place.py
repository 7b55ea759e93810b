"""The directory of a build is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.forge.address import Credential
from firebrick.home import Home
from firebrick.node.event import Conclusion
from firebrick.server.place import Place
from firebrick.server.record import Outcome


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
