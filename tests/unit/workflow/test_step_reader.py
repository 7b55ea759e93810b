"""Steps into records: those in the background, what waits for them, and groups. Their mistakes are in `scenarios/language/invalid/background.yml`."""

import textwrap

from firebrick.workflow.reader import read_workflow
from firebrick.workflow.syntax import Control, ControlKind, Step


def steps(text: str) -> tuple[Step, ...]:
    listed = textwrap.indent(textwrap.dedent(text), " " * 6)
    return (
        read_workflow(f"on: push\njobs:\n  build:\n    runs-on: x\n    steps:\n{listed}", "ci.yml").jobs["build"].steps
    )


def test_what_is_waited_for_is_found_by_its_id_in_whatever_case():
    read = steps("""\
    - run: a
    - {id: One, run: b, background: true}
    - {id: two, uses: actions/checkout@v4, background: true}
    - wait: [TWO, one, two]
    - cancel: one
    """)
    assert [step.background for step in read] == [False, True, True, False, False]
    assert [step.control for step in read[3:]] == [Control(ControlKind.WAIT, (2, 1)), Control(ControlKind.CANCEL, (1,))]


def test_a_group_is_its_steps_and_one_that_waits_for_them():
    read = steps("""\
    - run: before
    - name: All
      parallel: [{run: a}, {id: b, run: b}]
    - wait-all:
    - wait: b
    """)
    assert [step.background for step in read] == [False, True, True, False, False, False]
    assert read[3].control == Control(ControlKind.WAIT, (1, 2))
    assert read[4].control == Control(ControlKind.WAIT_ALL)
    assert read[5].control == Control(ControlKind.WAIT, (2,))
    assert [step.display_name for step in read[3:]] == ["All", "Wait for all", "Wait"]


def test_they_always_run():
    (_, waits) = steps("- {id: a, run: a, background: true}\n- {wait: a, continue-on-error: true}")
    assert waits.if_.expression.functions == {"always"}
    assert waits.continue_on_error is not None
