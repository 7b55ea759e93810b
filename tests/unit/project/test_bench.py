"""Rows of the benchmark table: what is met and what is missed."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from bench.row import Row, compared
from bench.table import print_table, write_json


def row(**changes):
    return Row(**{"name": "boot", "unit": "s", "floor": 2.0, "value": 3.0, "limit": 1.5, **changes})


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({}, True),
        ({"value": 3.01}, False),
        ({"value": 1.3, "limit": 0.6, "more_is_better": True}, True),
        ({"value": 1.19, "limit": 0.6, "more_is_better": True}, False),
    ],
)
def test_a_limit_is_met_or_missed(changes, met):
    assert row(**changes).ok is met


def test_medians_are_compared_and_the_spread_is_told():
    made = compared("boot", "s", [1.0, 2.0, 9.0], [2.0, 3.0, 5.0], 1.5)
    assert (made.floor, made.value, made.ratio) == (2.0, 3.0, 1.5)
    assert made.spread == pytest.approx(1.0)


def test_the_file_has_the_fields_that_were_promised(tmp_path):
    target = tmp_path / "build" / "bench.json"
    write_json([row()], target)
    assert json.loads(target.read_text()) == [
        {"name": "boot", "unit": "s", "floor": 2.0, "value": 3.0, "ratio": 1.5, "limit": 1.5, "ok": True}
    ]


def test_the_table_says_which_limit_was_missed():
    output = io.StringIO()
    print_table(Console(file=output, width=140), [row(), row(name="fork", value=9.0)], "Against bare QEMU")
    boot, fork = (line for line in output.getvalue().splitlines() if line.startswith(("boot", "fork")))
    assert boot.rstrip().endswith("met")
    assert fork.rstrip().endswith("missed")
