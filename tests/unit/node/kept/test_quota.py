"""Who has to make room: never somebody who has less than whoever comes."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from firebrick.node.kept.quota import Quota, beyond

MIB = 1 << 20


@dataclass(frozen=True)
class Record:
    tenant: str
    run: str
    at: float
    mib: int = 1
    is_checkpoint: bool = False

    @property
    def bytes(self) -> int:
        return self.mib * MIB


def gone(records, *, mib=1000, count=1000):
    return [(one.run, one.at) for one in beyond(records, Quota(mib=mib, count=count))]


def test_what_fits_stays():
    assert gone([Record("a", "1", 1, mib=3), Record("b", "2", 2, mib=3)], mib=6, count=2) == []


def test_of_runs_with_one_each_the_oldest_goes():
    assert gone([Record("a", "2", 2), Record("a", "1", 1), Record("a", "3", 3)], count=2) == [("1", 1)]


def test_checkpoints_of_a_job_push_out_those_of_its_own_run_alone():
    own = [Record("a", "evil", at, is_checkpoint=True) for at in range(10, 20)]
    others = [Record("a", "1", 1), Record("b", "2", 2), Record("b", "3", 3)]
    assert gone([*others, *own], count=5) == [("evil", at) for at in range(10, 18)]


def test_a_machine_that_failed_goes_after_checkpoints():
    run = [Record("a", "1", 1), Record("a", "1", 2, is_checkpoint=True), Record("a", "1", 3, is_checkpoint=True)]
    assert gone(run, count=1) == [("1", 2), ("1", 3)]
    assert gone([*run, Record("a", "2", 4)], count=1) == [("1", 2), ("1", 3), ("1", 1)]


def test_many_runs_of_a_repository_push_out_their_own():
    many = [Record("evil", str(at), at) for at in range(10, 20)]
    assert gone([Record("b", "mine", 1), *many], count=3) == [(str(at), at) for at in range(10, 18)]


def test_one_that_is_larger_than_what_others_have_is_too_much():
    assert gone([Record("b", "mine", 1, mib=3), Record("evil", "large", 2, mib=6)], mib=8) == [("large", 2)]
    assert gone([Record("b", "mine", 1, mib=3), Record("b", "large", 2, mib=6)], mib=8) == [("mine", 1)]
    assert gone([Record("b", "large", 1, mib=9)], mib=8) == [("large", 1)]


RECORDS = st.lists(
    st.builds(
        Record,
        tenant=st.sampled_from("abc"),
        run=st.sampled_from("1234"),
        at=st.floats(0, 100),
        mib=st.integers(0, 20),
        is_checkpoint=st.booleans(),
    ),
    max_size=30,
)


@given(RECORDS, st.integers(1, 60), st.integers(1, 20))
def test_what_is_left_fits_and_nobody_lost_to_who_has_more(records, mib, count):
    quota = Quota(mib=mib, count=count)
    lost = beyond(records, quota)
    left = list(records)
    for one in lost:
        left.remove(one)
    assert len(left) <= count
    assert sum(one.mib for one in left) <= mib
    if lost:  # one fewer would not have been enough
        assert len(left) + 1 > count or sum(one.mib for one in [*left, lost[-1]]) > mib
    last = {one.tenant: one for one in lost}
    for tenant, one in last.items():
        had_mib = sum(other.mib for other in left if other.tenant == tenant) + one.mib
        had = sum(other.tenant == tenant for other in left) + 1
        for other in {other.tenant for other in left} - {tenant}:
            more_mib = sum(each.mib for each in left if each.tenant == other)
            more = sum(each.tenant == other for each in left)
            assert had_mib >= more_mib or had >= more
