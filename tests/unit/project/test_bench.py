"""Rows of the benchmark table: what is met and what is missed."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from bench.lab import agent, network
from bench.row import Row, compared
from bench.table import print_table, write_json
from firebrick.guest import message, protocol


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


def test_the_floor_speaks_the_protocol_of_the_agent():
    frames = list(protocol.FrameDecoder().feed(agent.opening(["cat", "/proc/uptime"])))
    identity = protocol.Messages(message.FromHostConnection, "here").decode(frames[0].payload)
    command = protocol.Messages(message.Request, "here").decode(frames[1].payload)
    assert isinstance(identity, message.SetIdentity)
    assert len(identity.machine_id) == 32
    assert isinstance(command, message.Exec)
    assert (command.argv, command.timeout_ms, command.detach) == ((b"cat", b"/proc/uptime"), None, False)
    assert [frame.stream for frame in frames] == [0, 1]


def test_what_dd_says_is_a_rate():
    said = b"33554432 bytes (34 MB, 32 MiB) copied, 0.5 s, 67 MB/s\n"
    assert network.rate(said) == pytest.approx(67.1, abs=0.1)
    with pytest.raises(ValueError, match="No route"):
        network.rate(b"bash: connect: No route to host")
