"""The life of a machine: admission is total and consistent, and no sequence of operations leaves the picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.machine.errors import StateError
from firebrick.machine.state import Accepted, Denied, Ignored, Life, Operation, State, admit

states = st.sampled_from(State)
operations = st.sampled_from(Operation)

# What each operation leads to when it is carried out.
LEADS_TO = {
    Operation.PAUSE: State.PAUSED,
    Operation.RESUME: State.RUNNING,
    Operation.SNAPSHOT: State.SAVING,
    Operation.STOP: State.STOPPING,
    Operation.RELEASE: State.RELEASED,
    Operation.KILL: State.ENDED,
}


@given(states, operations)
def test_every_operation_has_a_verdict_in_every_state(state, operation):
    verdict = admit(state, operation)
    assert isinstance(verdict, Accepted | Ignored | Denied)
    if isinstance(verdict, Denied):
        assert verdict.reason


@given(states)
def test_kill_is_denied_of_another_s_machine_only(state):
    assert isinstance(admit(state, Operation.KILL), Denied) == (state is State.RELEASED)


@given(states, st.sampled_from(list(LEADS_TO)))
def test_an_accepted_operation_leads_to_a_state_that_can_be_entered(state, operation):
    life = Life("m")
    _walk(life, state)
    if isinstance(admit(state, operation), Accepted):
        life.enter(LEADS_TO[operation])
        assert life.state is LEADS_TO[operation]


@given(states, st.sampled_from([Operation.PAUSE, Operation.RESUME, Operation.STOP, Operation.RELEASE, Operation.KILL]))
def test_an_operation_repeated_is_ignored_or_denied(state, operation):
    life = Life("m")
    _walk(life, state)
    if isinstance(admit(state, operation), Accepted):
        life.enter(LEADS_TO[operation])
        assert not isinstance(admit(life.state, operation), Accepted)


@given(st.lists(operations))
def test_whatever_is_asked_an_ended_machine_stays_ended(sequence):
    life = Life("m")
    ended = False
    for operation in sequence:
        if operation in LEADS_TO and isinstance(admit(life.state, operation), Accepted):
            life.enter(LEADS_TO[operation])
        ended = ended or life.state is State.ENDED
        assert (life.state is State.ENDED) == ended


@given(states)
def test_the_end_may_come_at_any_moment_and_is_final(state):
    life = Life("m")
    _walk(life, state)
    life.enter(State.ENDED)
    life.enter(State.RUNNING)
    assert life.state is (State.RELEASED if state is State.RELEASED else State.ENDED)


@given(operations)
def test_what_was_released_is_nobodys_here(operation):
    assert not isinstance(admit(State.RELEASED, operation), Accepted)


def test_a_step_the_picture_does_not_have_is_an_error():
    with pytest.raises(StateError, match="cannot go from starting to paused"):
        Life("m").enter(State.PAUSED)


def test_a_denial_says_why_and_what_to_do():
    life = Life("m7")
    _walk(life, State.PAUSED)
    with pytest.raises(StateError, match="cannot use machine m7: it is paused") as caught:
        life.admits(Operation.USE)
    assert caught.value.hint == "Resume it first."


def _walk(life: Life, state: State) -> None:
    for step in {
        State.STARTING: [],
        State.RUNNING: [State.RUNNING],
        State.PAUSED: [State.RUNNING, State.PAUSED],
        State.SAVING: [State.RUNNING, State.SAVING],
        State.STOPPING: [State.RUNNING, State.STOPPING],
        State.ENDED: [State.ENDED],
        State.RELEASED: [State.RUNNING, State.RELEASED],
    }[state]:
        life.enter(step)
