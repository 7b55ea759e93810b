"""Set up once, fork many: the same results as without, and the common part run once."""

import pytest

from firebrick.machine import SnapshotError
from firebrick.node.event import CancelCause, JobStarted, StepStarted
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow
from tests.unit.node.matrices import MARK, flow, run_of, without


@pytest.mark.parametrize(
    "text",
    [
        flow(MARK),
        flow(MARK, common="run: exit 3", strategy="fail-fast: false"),
        flow(MARK, common="{run: exit 3, continue-on-error: true}"),
        flow(MARK, own="exit ${{ matrix.word == 'sand' && 1 || 0 }}", strategy="fail-fast: false"),
        flow(MARK, strategy="max-parallel: 1"),
    ],
    ids=["success", "common-fails", "common-may-fail", "one-fails", "one-at-a-time"],
)
async def test_the_same_results_as_without(forks, text):
    plain = await forks.run(without(text))
    forked = await forks.run(text)
    assert run_of(forked) == run_of(plain)


async def test_the_common_part_runs_once(forks):
    ran = []
    shell = forks.driver.programs["bash"]

    async def counting(task):
        script = task.disk.find(task.path(task.argv[-1]))
        ran.append(script.content.read(0, script.content.size).decode())
        return await shell(task)

    forks.driver.programs["bash"] = counting
    told = await forks.run(flow(MARK))
    assert told.result.conclusion == "success"
    assert sum("echo common" in script for script in ran) == 1
    assert sum("seen=" in script for script in ran) == 3
    assert any(line.startswith("The other jobs of the matrix go on from here (") for line in told.lines("build.0", -1))
    assert [event.step for event in told.events if isinstance(event, StepStarted) and event.job == "build.2"] == [
        0,
        1,
        2,
        3,
        4,
    ]


async def test_with_room_for_one_machine_it_ends_all_the_same(forks):
    forks.capacity = 1
    told = await forks.run(flow(MARK))
    assert told.jobs() == {"build.0": "success", "build.1": "success", "build.2": "success"}
    assert len([event for event in told.events if isinstance(event, JobStarted)]) == 3


async def test_where_the_machine_cannot_be_saved_every_job_does_it_itself(forks):
    await forks.run("on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n")  # there is a template now
    plain = await forks.run(without(flow(MARK)))
    forks.driver.faults.save = SnapshotError("no room")
    told = await forks.run(flow(MARK))
    assert run_of(told) == run_of(plain)
    assert any("cannot go on from here: no room" in line for line in told.lines("build.0", -1))


async def test_the_next_one_takes_the_place_of_one_that_was_lost(forks):
    text = flow(MARK, common="run: wait", strategy="fail-fast: false")
    async with forks.live(text) as run:
        lost = False
        async for event in run.events():
            if isinstance(event, StepStarted) and event.step == 1 and not lost:
                lost = True
                shell = forks.driver.programs["bash"]

                async def hurried(task, shell=shell):
                    script = task.disk.find(task.path(task.argv[-1]))
                    text = script.content.read(0, script.content.size)
                    return 0 if text.strip() == b"wait" else await shell(task)

                forks.driver.programs["bash"] = hurried
                await forks.driver.machines[-1].kill()
        result = await run.result()
    conclusions = [job.conclusion.value for job in result.jobs.values()]
    assert sorted(conclusions) == ["failure", "success", "success"]


async def test_a_run_that_is_cancelled_in_its_common_part_leaves_nothing(forks):
    async with forks.live(flow(MARK, common="run: wait")) as run:
        async for event in run.events():
            if isinstance(event, StepStarted) and event.step == 1:
                run.cancel(CancelCause.USER)
        result = await run.result()
    assert {job.conclusion.value for job in result.jobs.values()} == {"cancelled"}
    assert len(forks.driver.machines) == 2  # the template, and the one that ran the common part


async def test_a_run_that_is_left_in_its_common_part_leaves_nothing(forks):
    async with forks.live(flow(MARK, common="run: wait")) as run:
        async for event in run.events():
            if isinstance(event, StepStarted) and event.step == 1:
                break
    assert (await run.result()).conclusion == "cancelled"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (flow(MARK, common="run: echo ${{ matrix.word }}"), 19, "may not use `matrix` or `strategy`"),
        (flow(MARK, common="{if: \"matrix.word == 'clay'\", run: echo}"), 19, "The condition of this step"),
        (flow(MARK, common="{run: echo, env: {N: '${{ strategy.job-index }}'}}"), 19, "may not use"),
        (
            flow(MARK).replace("{A: workflow}", "{A: w}").replace("runs-on: base", "runs-on: '${{ matrix.word }}'"),
            6,
            "of the job",
        ),
        (
            flow(MARK).replace("runs-on: base", "runs-on: base\n        environment: '${{ matrix.word }}'"),
            7,
            "of the job",
        ),
        (
            flow(MARK, common="{run: x, background: true}"),
            20,
            "A step before this one still runs in the background, where the jobs of the matrix part",
        ),
        (flow(MARK.replace("matrix}", "other}")), 20, "Unexpected value 'other' for FIREBRICK_FORK"),
        (
            flow(MARK).replace("runs-on: base", "runs-on: base\n        services: {db: {image: db}}"),
            21,
            "A job with services",
        ),
        (flow(f"{MARK}\n          {MARK}"), 21, "can end only once"),
    ],
)
def test_what_is_not_common_is_told_when_the_workflow_is_read(text, line, said):
    with pytest.raises(WorkflowError) as caught:
        read_workflow(text, "ci.yml")
    [problem] = caught.value.errors
    assert said in problem.message
    assert problem.line == line


async def test_without_a_matrix_the_mark_means_nothing(forks):
    told = await forks.run(
        f"on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - run: echo\n      {MARK}\n      - run: echo two\n"
    )
    assert told.steps() == ["success", "success", "success"]
