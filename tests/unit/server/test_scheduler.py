"""Who starts when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firebrick.server.scheduler import PATIENCE_S, Capacity, Demand, admit, in_order

ROOM = Capacity(builds=4, vcpus=8, memory_mib=8192)


def demand(number: int, repository: str = "a", vcpus: int = 2, memory_mib: int = 2048, waited_s: float = 0.0) -> Demand:
    return Demand(number, repository, vcpus, memory_mib, waited_s)


demands = st.lists(
    st.builds(
        Demand,
        number=st.integers(1, 10_000),
        repository=st.sampled_from("abcd"),
        vcpus=st.integers(1, 8),
        memory_mib=st.integers(128, 8192),
        waited_s=st.floats(0, 2 * PATIENCE_S),
    ),
    unique_by=lambda d: d.number,
    max_size=20,
)
capacities = st.builds(
    Capacity, builds=st.integers(1, 8), vcpus=st.integers(8, 32), memory_mib=st.integers(8192, 32768)
)


def test_arrival_decides_within_a_repository() -> None:
    assert [d.number for d in in_order([demand(3), demand(1), demand(2)], [])] == [1, 2, 3]


def test_a_flood_does_not_keep_another_repository_waiting() -> None:
    waiting = [demand(n) for n in range(1, 6)] + [demand(9, "b")]
    assert [d.number for d in in_order(waiting, [])] == [1, 9, 2, 3, 4, 5]
    assert [d.number for d in in_order(waiting, [demand(0)])] == [9, 1, 2, 3, 4, 5]


def test_who_has_waited_long_goes_by_age() -> None:
    waiting = [demand(1, waited_s=PATIENCE_S + 1), demand(2, waited_s=PATIENCE_S + 1), demand(3, "b"), demand(4, "c")]
    assert [d.number for d in in_order(waiting, [demand(0)])] == [1, 2, 3, 4]


def test_as_many_as_fit() -> None:
    waiting = [demand(n, repository=str(n)) for n in range(1, 9)]
    assert [d.number for d in admit(waiting, [], ROOM)] == [1, 2, 3, 4]
    assert [d.number for d in admit(waiting, [demand(0), demand(-1)], ROOM)] == [1, 2]
    assert admit(waiting, [demand(0, vcpus=8)], ROOM) == []


def test_a_large_build_is_not_overtaken_for_ever() -> None:
    waiting = [demand(1, "a", vcpus=8), demand(2, "b", vcpus=1)]
    assert admit(waiting, [demand(0, "c", vcpus=1)], ROOM) == []
    assert [d.number for d in admit(waiting, [], ROOM)] == [1]


@given(waiting=demands, running=demands, capacity=capacities)
def test_what_starts_fits_and_is_a_head_of_the_order(
    waiting: list[Demand], running: list[Demand], capacity: Capacity
) -> None:
    admitted = admit(waiting, running, capacity)
    assert admitted == in_order(waiting, running)[: len(admitted)]
    if admitted:
        everything = [*running, *admitted]
        assert len(everything) <= capacity.builds
        assert sum(d.vcpus for d in everything) <= capacity.vcpus
        assert sum(d.memory_mib for d in everything) <= capacity.memory_mib


@given(waiting=demands, capacity=capacities)
def test_on_an_idle_server_something_starts(waiting: list[Demand], capacity: Capacity) -> None:
    assert bool(admit(waiting, [], capacity)) == bool(waiting)


@given(waiting=demands, running=demands)
def test_the_order_is_a_permutation(waiting: list[Demand], running: list[Demand]) -> None:
    assert sorted(in_order(waiting, running), key=lambda d: d.number) == sorted(waiting, key=lambda d: d.number)
