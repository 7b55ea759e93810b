"""Whose the ports of the host are when machines are copied."""

import pytest

from firebrick import machine
from firebrick.machine import Fake, Forward, MachineSpec, Network, NetworkPolicy, SpecError

PORTS = (Forward(8080, 80),)
OTHERS = (Forward(8081, 80), Forward(8082, 443))


def spec_with(network: Network, tmp_path) -> MachineSpec:
    policy = NetworkPolicy(forwards=PORTS)
    return MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd", network=network, policy=policy)


async def test_a_fork_has_none_of_its_sources(tmp_path):
    spec = spec_with(Network.NAMESPACE, tmp_path)
    async with machine.launch(spec, Fake(), home=tmp_path) as m:
        async with m.fork() as copy, m.forks(2) as copies, copy.fork() as further:
            assert [each.spec.policy.forwards for each in (copy, *copies, further)] == [()] * 4
        async with m.fork(forwards=OTHERS) as copy, copy.fork() as further:
            assert copy.spec.policy.forwards == OTHERS
            assert further.spec.policy.forwards == ()
        assert m.spec == spec


async def test_what_is_restored_has_those_of_the_snapshot_or_others(tmp_path):
    spec = spec_with(Network.NAMESPACE, tmp_path)
    fake = Fake()
    async with machine.launch(spec, fake, home=tmp_path) as m:
        taken = await m.snapshot(tmp_path / "s")
    for snapshot, expected in ((taken, PORTS), (taken.with_forwards(OTHERS), OTHERS), (taken.with_forwards(()), ())):
        async with machine.restore(snapshot, fake, home=tmp_path) as copy:
            assert copy.spec.policy.forwards == expected
            assert copy.base is not None


async def test_a_wish_that_cannot_be_met_is_said_before_anything_is_saved(tmp_path):
    async with machine.launch(spec_with(Network.NONE, tmp_path), Fake(), home=tmp_path) as m:
        with pytest.raises(SpecError, match="cannot forward port 8081 to the machine: it has no network") as told:
            async with m.fork(forwards=OTHERS):
                pass
        assert "namespace" in told.value.hint
        assert list(m.directory.glob("fork-*")) == []
        async with m.fork() as copy:
            assert copy.spec.policy.forwards == ()
