"""Steps in the background: whose lines are whose, what is kept of them, and that nothing of them is left."""

import asyncio
import textwrap

import msgspec
import pytest

from firebrick.node.action.definition import docker_file
from firebrick.node.action.use import DockerUse, Place, entries_of, images_at_once
from firebrick.node.cancel import Cancellation
from firebrick.node.event import Annotation, CancelCause, LogLine, MachineKept, StepFinished, StepStarted
from firebrick.node.kept.rerun import Rerun
from firebrick.node.kept.shelf import Kind
from firebrick.workflow.reader import read_workflow


def job(steps: str) -> str:
    listed = textwrap.indent(textwrap.dedent(steps), " " * 6)
    return f"on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n{listed}"


async def test_lines_annotations_and_summaries_are_of_their_step(bed):
    told = await bed.run(
        job("""\
        - id: one
          background: true
          run: |
            until go
            echo one
            echo ::error::of one
            echo of one >> $GITHUB_STEP_SUMMARY
        - run: |
            echo two
            echo ::notice::of two
            echo >> go
        - wait: one
        """)
    )
    assert told.lines(step=0) == ["one", "##[error]of one"]
    assert told.lines(step=1) == ["two", "##[notice]of two"]
    assert [(each.step, each.message) for each in told.annotations()] == [(1, "of two"), (0, "of one")]
    ended = [event for event in told.events if isinstance(event, StepFinished)]
    assert {event.step: event.summary for event in ended} == {0: "of one\n", 1: "", 2: ""}
    assert [event.step for event in told.events if isinstance(event, StepStarted)] == [0, 1, 2]


async def test_a_job_says_the_names_of_all_its_steps(bed):
    told = await bed.run(
        job("""\
        - parallel: [{name: A, run: echo}, {run: echo b}]
        - {id: c, background: true, run: echo c}
        - wait: c
        - wait-all:
        - cancel: c
        - {name: Mine, wait-all: true}
        """)
    )
    (started,) = (event for event in told.events if type(event).__name__ == "JobStarted")
    assert started.steps == ("A", "Run echo b", "Wait", "Run echo c", "Wait", "Wait for all", "Cancel", "Mine")
    assert told.result.conclusion == "success"


async def test_what_a_step_that_still_runs_has_set_is_seen_by_no_expression(bed):
    told = await bed.run(
        job("""\
        - id: one
          background: true
          run: |
            echo a=1 >> $GITHUB_OUTPUT
            until go
        - run: |
            echo ${{ toJSON(steps) == '{}' }}
            echo >> go
        - wait: one
        - run: "echo ${{ steps.one.outputs.a }}"
        """)
    )
    assert told.lines(step=1) == ["true"]
    assert told.lines(step=3) == ["1"]


async def test_more_than_the_environment_may_hold_fails_the_step_that_waits(bed):
    def fills(name: str) -> str:
        return f"- {{id: {name}, name: {name}, background: true, run: 'fill 7 100000 {name} >> $GITHUB_ENV'}}\n"

    told = await bed.run(job(fills("a") + fills("b") + "- wait: [a, b]\n"))
    assert told.steps() == ["success", "success", "failure"]
    assert [each.message for each in told.annotations()] == [
        "Unable to process file command 'env' successfully.",
        "The environment of the job has more than 1024 KiB.",
    ]


async def test_one_that_waits_for_its_turn_can_be_cancelled(bed):
    waits = "- {background: true, name: Waits, run: until go}\n"
    told = await bed.run(
        job(
            waits * 10
            + "- {id: last, name: Last, background: true, run: echo never}\n- cancel: last\n- run: |\n    echo ${{ steps.last.outcome }}\n    echo >> go\n"
        )
    )
    assert told.lines(step=10) == []
    assert told.lines(step=12) == ["cancelled"]
    assert [event.step for event in told.events if isinstance(event, StepStarted)] == [*range(10), 11, 12]
    assert told.steps().count("cancelled") == 1
    assert told.result.conclusion == "success"


async def test_a_post_phase_comes_after_all_and_has_what_they_left(bed):
    bed.local(
        "act",
        {
            "action.yml": "runs: {using: node24, main: main.js, post: post.js}",
            "main.js": "until go\necho STATE=1 >> $GITHUB_STATE\necho FROM=main >> $GITHUB_ENV\n",
            "post.js": "echo post $STATE_STATE $FROM\n",
        },
    )
    told = await bed.run(job("- {uses: ./act, background: true}\n- run: echo >> go"))
    assert told.lines(step=2) == ["post 1 main"]
    assert told.lines(step=-1)[-1] == "Waiting for the steps that still run in the background: Run ./act"


async def test_steps_of_a_composite_action_have_the_environment_of_the_job_in_its_post_phase(bed):
    bed.local(
        "inner",
        {
            "action.yml": "runs: {using: node24, main: main.js, post: post.js}",
            "main.js": "echo FROM=main >> $GITHUB_ENV\n",
            "post.js": "echo post $FROM\n",
        },
    )
    bed.local("outer", {"action.yml": "runs: {using: composite, steps: [{uses: ./inner}]}"})
    told = await bed.run(
        job("- {id: act, uses: ./outer, background: true}\n- wait: act\n- run: echo FROM=later >> $GITHUB_ENV\n")
    )
    assert told.lines(step=3) == ["post later"]


async def test_steps_that_run_at_once_may_use_one_action(bed):
    action = "runs: {using: composite, steps: [{shell: bash, run: 'echo $GITHUB_ACTION_PATH'}]}"
    bed.actions.add("octo/act@v1", {"action.yml": action})
    bed.local("act", {"action.yml": "runs: {using: composite, steps: [{uses: octo/act@v1}]}"})
    told = await bed.run(
        job("- parallel: [{uses: octo/act@v1}, {uses: ./act}, {uses: octo/act@v1}]\n- uses: octo/act@v1\n")
    )
    assert told.steps() == ["success"] * 5
    assert {line for line in told.lines() if "act/v1" in line} == {"/home/runner/work/_actions/octo/act/v1"}
    assert bed.actions.fetched == ["octo/act@v1"]


def test_a_job_has_room_for_all_machines_its_steps_have_at_once():
    steps = "- parallel: [{uses: docker://tool}, {run: x}, {uses: docker://tool}]\n- uses: docker://tool\n"
    entries = entries_of(read_workflow(job(steps), "ci.yml").jobs["build"].steps)
    file = docker_file("docker://tool", "docker://tool")
    for entry in entries:
        if entry.step.uses is not None:
            entry.use = DockerUse(file=file, runs=file.runs, place=Place(path=""))
    assert images_at_once(entries, most=10) == 3
    assert images_at_once(entries, most=1) == 2
    assert images_at_once(entries[3:], most=10) == 1
    assert images_at_once(entries[1:2], most=10) == 0


async def test_a_machine_that_is_lost_ends_all(bed):
    async with bed.live(
        job("""\
        - {background: true, run: wait}
        - {background: true, run: "echo ready\\nwait"}
        - run: wait
        """)
    ) as run:
        async for event in run.events():
            if isinstance(event, LogLine) and event.text == "ready":
                await bed.lender.guests[0].close()
        result = await run.result()
    assert result.conclusion == "failure"
    assert "mistake of its own" not in result.jobs["build"].message
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("step-")]


async def test_a_job_that_is_given_up_ends_what_runs_in_the_background(bed):
    bed.settings = msgspec.structs.replace(bed.settings, cancel_s=0.2)
    async with bed.live(
        job('- {background: true, if: always(), run: "echo ready\\nwait"}\n- {if: always(), run: wait}')
    ) as run:
        async for event in run.events():
            if isinstance(event, LogLine) and event.text == "ready":
                run.cancel(CancelCause.USER)
        assert (await run.result()).conclusion == "cancelled"
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("step-")]


# --- what is kept ---

KEPT = """\
- {run: echo ADDED=soot >> $GITHUB_ENV}
- {id: bg, background: true, run: "echo a=1 >> $GITHUB_OUTPUT"}
- run: echo two
- wait: bg
- name: Last
  run: echo ${{ steps.bg.outputs.a }} $ADDED
- {name: Again, wait: bg}
"""


async def test_there_is_no_checkpoint_while_there_are_steps_to_wait_for(forks):
    forks.settings = msgspec.structs.replace(forks.settings, checkpoint="step")
    told = await forks.run(job(KEPT))
    kept = [event.label for event in told.events if isinstance(event, MachineKept)]
    assert kept == ["before-1", "before-2", "before-5", "before-6"]
    notice = "No checkpoint before this step: there are steps in the background to wait for."
    assert [event.step for event in told.events if isinstance(event, LogLine) and event.text == notice] == [2, 3]


@pytest.mark.parametrize(("step", "lines"), [(2, ["two", "1 soot"]), (5, ["1 soot"])])
async def test_a_run_goes_on_from_a_checkpoint(forks, step, lines):
    forks.settings = msgspec.structs.replace(forks.settings, checkpoint=f"before:{step}")
    await forks.run(job(KEPT))
    entry = forks.pool().kept.find("run-1", "build", f"before-{step}", kind=Kind.BEFORE)
    told = await forks.run(job(KEPT), id="run-2", rerun=Rerun(entry=entry))
    said = [line for line in told.lines() if line in {"two", "1 soot"}]
    assert said == lines
    assert told.result.conclusion == "success"


async def test_each_step_that_fails_keeps_the_machine(forks):
    told = await forks.run(
        job("- {id: a, background: true, run: exit 1}\n- {id: b, background: true, run: exit 2}\n- wait: [a, b]\n")
    )
    kept = [event for event in told.events if isinstance(event, MachineKept)]
    assert sorted(event.step for event in kept) == [0, 1]
    assert not [event for event in told.events if isinstance(event, Annotation) and event.step == 2]


# --- parts of a cancellation ---


async def test_a_part_ends_when_the_whole_does_and_may_end_before():
    whole = Cancellation(10.0)
    first, second = whole.part(), whole.part()
    first.stop()
    assert (first.stopped, whole.cause, second.cause) == (True, None, None)
    whole.request(CancelCause.TIMEOUT)
    assert (first.cause, second.cause) == (CancelCause.USER, CancelCause.TIMEOUT)
    second.stop()
    assert not second.stopped
    assert whole.part().cause is CancelCause.TIMEOUT
    second.close()
    second.close()
    for each in (first, whole):
        each.close()
