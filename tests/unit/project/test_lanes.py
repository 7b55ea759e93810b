"""Lanes: what must not run side by side does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lanes import place_of, share_of

TESTS = Path(__file__).parents[2]
SEATS = re.compile(r"\b(Seats|SlotPool|HostNetwork|Bubble|Jailer)\b")
FILES = [str(file.relative_to(TESTS.parent)) for file in sorted(TESTS.rglob("test_*.py"))]


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith(("tests/unit/", "tests/lab/"))])
def test_what_takes_seats_is_in_one_lane(file):
    if SEATS.search((TESTS.parent / file).read_text()):
        assert share_of(f"{file}::test") == "seats"


def test_the_rest_stays_together_by_file_or_by_what_it_shares():
    assert share_of("tests/unit/node/test_glob.py::test_a[b::c]") == "tests/unit/node/test_glob.py"
    folder = {share_of(f"{file}::test") for file in FILES if file.startswith("tests/scenarios/projects/")}
    assert len(folder) == 1
    assert len({share_of(f"{file}::test") for file in FILES}) > 100


def test_a_share_begins_at_one_time_and_the_short_ones_come_last():
    places = {}
    for file in FILES:
        places.setdefault(share_of(f"{file}::test"), set()).add(place_of(f"{file}::test"))
    assert place_of("tests/unit/node/test_glob.py::test") == max(max(each) for each in places.values())
    assert place_of("tests/scenarios/projects/test_real_projects.py::test") == 0
    assert {share: each for share, each in places.items() if len(each) > 1 and share != "seats"} == {}
