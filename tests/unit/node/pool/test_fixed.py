"""Machines that are to be the same each time."""

import time
from dataclasses import replace

from firebrick.guest import protocol
from firebrick.guest.double import GuestDouble
from firebrick.machine import fake
from firebrick.node.event import LogLine
from firebrick.node.order import Fixed
from firebrick.node.pool.fixed import identity_of
from tests.unit.node.forks import RESOURCES
from tests.unit.node.matrices import MARK, flow

FIXED = Fixed(time_s=1_600_000_000, hostname="brick", seed="a" * 40)
LAYOUT = b"/proc/sys/kernel/randomize_va_space"
SAID = "Random numbers will differ from run to run: "
FLOW = """
on: push
env: {PYTHONHASHSEED: '7'}
jobs:
  build:
    runs-on: base
    steps: [{run: 'echo ${{ runner.name }} $RUNNER_NAME $SOURCE_DATE_EPOCH $PYTHONHASHSEED $PERL_HASH_SEED $PERL_PERTURB_KEYS'}]
"""


def test_an_identity_is_that_of_its_seed():
    one, again = identity_of(FIXED), identity_of(FIXED)
    assert (one.entropy, one.machine_id, one.hostname) == (again.entropy, again.machine_id, "brick")
    assert len(one.entropy) > 0
    assert len(one.machine_id) == 32
    other = identity_of(replace(FIXED, seed="b"))
    assert one.entropy != other.entropy
    assert one.machine_id != other.machine_id
    assert identity_of(None) is None


async def test_machines_of_a_run_get_it(forks):
    forks.resources = replace(RESOURCES, fixed=FIXED)
    began = time.time_ns()
    for name in ("one", "two"):
        told = await forks.run(FLOW, id=name)
        assert told.lines(step=0) == ["brick brick 1600000000 7 0 0"]
    layouts = [machine.guest.disk.find(LAYOUT) for machine in forks.driver.machines[1:]]
    assert [layout.content.read(0, 9) for layout in layouts] == [b"0\n", b"0\n"]
    first, second = (machine.guest.identity for machine in forks.driver.machines[1:])
    assert (first.hostname, first.machine_id, first.entropy) == (second.hostname, second.machine_id, second.entropy)
    took = time.time_ns() - began
    for identity in (first, second):
        assert 0 <= identity.realtime_ns - FIXED.time_s * 1_000_000_000 <= took


async def test_the_jobs_of_a_matrix_get_it_too(forks):
    """A fork of a machine has an identity of its own, so nothing is forked."""
    forks.resources = replace(RESOURCES, fixed=FIXED)
    told = await forks.run(flow(MARK))
    assert told.result.conclusion == "success"
    assert {machine.guest.identity.hostname for machine in forks.driver.machines[1:]} == {"brick"}
    assert len(forks.driver.machines[1:]) == 3


async def test_others_are_themselves(forks):
    for name in ("one", "two"):
        told = await forks.run(FLOW, id=name)
        assert told.lines(step=0)[0].endswith("  7  ")
    first, second = (machine.guest.identity for machine in forks.driver.machines[1:])
    assert first.machine_id != second.machine_id
    assert first.entropy != second.entropy


class Seedable(GuestDouble):
    """One whose agent knows how."""

    def __init__(self, **options):
        super().__init__(**options)
        self.features = (*self.features, protocol.SEED)


async def test_their_random_numbers_follow_from_seed_and_purpose(forks, monkeypatch):
    monkeypatch.setattr(fake, "GuestDouble", Seedable)
    forks.resources = replace(RESOURCES, fixed=FIXED)
    for _ in range(2):
        told = await forks.run(flow(MARK))
        assert told.result.conclusion == "success"
        assert not node_lines(told, SAID)
    seeds = [machine.guest.seed for machine in forks.driver.machines]
    assert seeds[0] is None  # the template
    assert seeds[1:4] == seeds[4:]
    assert len({each.seed for each in seeds[1:4]}) == 3


async def test_a_machine_that_cannot_be_seeded_says_so(forks):
    forks.resources = replace(RESOURCES, fixed=FIXED)
    told = await forks.run(FLOW)
    assert told.result.conclusion == "success"
    assert len(node_lines(told, SAID)) == 1


async def test_others_are_not_seeded(forks, monkeypatch):
    monkeypatch.setattr(fake, "GuestDouble", Seedable)
    told = await forks.run(FLOW)
    assert told.result.conclusion == "success"
    assert [machine.guest.seed for machine in forks.driver.machines] == [None, None]


def node_lines(told, text):
    """What the node said in any job."""
    return [event.text for event in told.events if isinstance(event, LogLine) and text in event.text]
