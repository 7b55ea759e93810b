from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.workflow.admission import MAX_WAITING, Group, leave, request

QUIET = settings(deadline=None, derandomize=True)


def test_the_first_runs_and_the_next_waits():
    first = request(Group(), "a")
    assert (first.started, first.cancelled) == ("a", ())
    second = request(first.group, "b")
    assert (second.started, second.cancelled) == (None, ())
    third = request(second.group, "c")
    assert (third.group, third.started, third.cancelled) == (Group("a", ("c",)), None, ("b",))
    assert leave(third.group, "a").started == "c"
    assert leave(leave(third.group, "a").group, "c").group.is_empty


def test_cancel_in_progress_takes_all():
    group = Group("a", ("b", "c"))
    ruling = request(group, "d", cancel_in_progress=True)
    assert ruling.cancelled == ("a", "b", "c")
    assert ruling.group == Group("a", ("d",))
    assert ruling.started is None


def test_a_long_queue_keeps_its_order_and_its_limit():
    group = Group("a")
    for number in range(MAX_WAITING):
        ruling = request(group, f"m{number}", queue="max")
        assert ruling.cancelled == ()
        group = ruling.group
    full = request(group, "late", queue="max")
    assert (full.group, full.cancelled) == (group, ("late",))
    assert leave(group, "a").started == "m0"


def test_who_is_not_there_leaves_nothing():
    group = Group("a", ("b",))
    assert leave(group, "x").group == group
    assert leave(group, "b").group == Group("a")
    assert leave(Group(), "x").group.is_empty


@QUIET
@given(st.lists(st.tuples(st.sampled_from(["single", "max", "cancel", "leave"]), st.integers(0, 6)), max_size=40))
def test_one_runs_and_nobody_is_lost(moves):
    """Against a plain account of everybody who came: running or waiting in the group, cancelled, or gone."""
    group, state, born = Group(), {}, 0
    for move, pick in moves:
        before = group
        if move == "leave":
            present = sorted(name for name, how in state.items() if how in {"running", "waiting"})
            if not present:
                continue
            name = present[pick % len(present)]
            ruling = leave(group, name)
            state[name] = "gone"
        else:
            name, born = f"m{born:02}", born + 1
            ruling = request(
                group, name, cancel_in_progress=move == "cancel", queue="max" if move == "max" else "single"
            )
            state[name] = "waiting"
        for cancelled in ruling.cancelled:
            if state[cancelled] == "waiting":
                state[cancelled] = "cancelled"
        if ruling.started is not None:
            assert state[ruling.started] == "waiting"
            state[ruling.started] = "running"
        group = ruling.group
        running = [name for name, how in state.items() if how == "running"]
        waiting = {name for name, how in state.items() if how == "waiting"}
        assert running == ([group.running] if group.running else [])
        assert waiting == set(group.waiting)
        assert len(set(group.waiting)) == len(group.waiting)
        # A place is never left empty while somebody waits, and never taken from who runs.
        assert group.running is not None or not group.waiting
        if before.running is not None and not (move == "leave" and state[before.running] == "gone"):
            assert group.running == before.running
        # Who waits does not overtake.
        stayed = [name for name in before.waiting if name in group.waiting]
        assert [name for name in group.waiting if name in stayed] == stayed
