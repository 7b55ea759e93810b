"""Ending a run: asked, out of time, abandoned."""

import asyncio

import pytest

from firebrick.node.event import CancelCause, JobFinished, LogLine, RunFinished, StepStarted
from firebrick.node.order import Resources

WAITING = """
on: push
jobs:
  build:
    runs-on: base
    steps:
      - run: |
          echo ready
          on-interrupt interrupted
      - run: echo never
      - if: always()
        run: echo cleanup ${{ job.status }}
  after:
    needs: build
    runs-on: base
    steps: [{run: echo never}]
"""


async def cancel_at(run, kind, cause=CancelCause.USER):
    """Cancel at the first event of this kind; every event."""
    events = []
    async for event in run.events():
        events.append(event)
        if isinstance(event, kind):
            run.cancel(cause)
    return events


def texts(events, step):
    return [event.text for event in events if isinstance(event, LogLine) and event.step == step]


async def test_cancel_interrupts_the_step_and_runs_what_always_runs(bed):
    async with bed.live(WAITING) as run:
        events = await cancel_at(run, LogLine)
        result = await run.result()
    assert texts(events, 0) == ["ready", "interrupted", "##[error]The operation was canceled."]
    assert texts(events, 1) == []
    assert texts(events, 2) == ["cleanup cancelled"]
    assert {job: r.conclusion.value for job, r in result.jobs.items()} == {"build": "cancelled", "after": "cancelled"}
    assert result.conclusion == "cancelled"
    assert result.message == "Cancelled."


@pytest.mark.parametrize("words", ["ignore INT\n          wait", "ignore INT\n          ignore TERM\n          wait"])
async def test_a_step_that_ignores_signals_is_killed(bed, words):
    text = f"on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - run: |\n          {words}\n"
    async with bed.live(text) as run:
        await cancel_at(run, StepStarted)
        assert (await run.result()).conclusion == "cancelled"


async def test_time_that_is_over_is_a_failure(bed):
    text = "on: push\njobs: {build: {runs-on: base, steps: [{run: wait}, {if: always(), run: echo last}]}}\n"
    told = await bed.run(text, resources=Resources(timeout_s=0.18))
    assert told.result.conclusion == "failure"
    assert told.result.message == (
        "The run was not done within its limit of 0.003 minutes. `firebrick run --timeout MINUTES`, or `timeout_s` of a build, gives it more."
    )
    assert told.result.jobs["build"].message == told.result.message
    assert told.lines(step=1) == ["last"]


async def test_time_of_a_job_that_is_over(bed):
    text = "on: push\njobs: {build: {runs-on: base, timeout-minutes: 0.002, steps: [{run: wait}]}}\n"
    told = await bed.run(text)
    assert told.jobs() == {"build": "failure"}
    assert told.result.jobs["build"].message == (
        "The job was not done within its `timeout-minutes: 0.002`. Give the job 'build' more of them, or its steps less to do."
    )


async def test_steps_that_still_run_have_an_end(bed):
    text = "on: push\njobs: {build: {runs-on: base, steps: [{run: wait}, {if: always(), run: wait}]}}\n"
    bed.settings = type(bed.settings)(interrupt_s=0.05, terminate_s=0.05, cancel_s=0.3)
    async with bed.live(text) as run:
        await cancel_at(run, StepStarted)
        assert (await run.result()).conclusion == "cancelled"


async def test_a_job_that_waits_for_a_machine_is_cancelled_at_once(bed):
    bed.lender.capacity = 0
    async with bed.live(WAITING) as run:
        await asyncio.sleep(0)
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.conclusion == "cancelled"
    assert bed.lender.guests == []


async def test_leaving_the_run_ends_it_and_still_tells_the_end(bed):
    async with bed.live(WAITING) as run:
        events = run.events()
        async for event in events:
            if isinstance(event, StepStarted):
                break
    rest = [event async for event in events]
    assert isinstance(rest[-1], RunFinished)
    assert [event.conclusion.value for event in rest if isinstance(event, JobFinished)][-1] == "cancelled"
    assert (await run.result()).conclusion == "cancelled"
    assert bed.lender.lent == 0


async def test_cancelling_the_task_that_holds_the_run_ends_everything(bed):
    started = asyncio.Event()

    async def hold():
        async with bed.live(WAITING) as run:
            async for event in run.events():
                if isinstance(event, StepStarted):
                    started.set()

    task = asyncio.create_task(hold())
    await asyncio.wait_for(started.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bed.lender.lent == 0


async def test_the_first_cause_counts_and_a_cancel_after_the_end_is_nothing(bed):
    async with bed.live(WAITING) as run:
        events = await cancel_at(run, StepStarted, CancelCause.SHUTDOWN)
        run.cancel(CancelCause.USER)
        assert (await run.result()).message == "Cancelled, because the node ends."
    assert isinstance(events[-1], RunFinished)
