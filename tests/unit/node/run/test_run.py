"""Whole runs on guests in memory: which jobs and steps run, what they see of each other, how it ends."""

import pytest

from firebrick.image.errors import UnknownImageError
from firebrick.machine.errors import BootError
from firebrick.node.event import JobFinished, JobStarted, RunFinished, RunStarted, StepFinished, StepStarted


async def test_the_events_of_a_run_in_their_order(bed):
    told = await bed.run(
        """
        name: hello
        on: push
        jobs:
          build:
            runs-on: base
            steps:
              - run: echo hello from $GITHUB_REPOSITORY
        """
    )
    kinds = [type(event) for event in told.events]
    assert kinds[0] is RunStarted
    assert kinds[-2:] == [JobFinished, RunFinished]
    assert kinds.index(JobStarted) < kinds.index(StepStarted) < kinds.index(StepFinished)
    assert told.lines(step=0) == ["hello from octo/hello"]
    assert told.result.conclusion == "success"
    assert told.jobs() == {"build": "success"}


async def test_outputs_travel_from_step_to_job_to_job(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          first:
            runs-on: base
            outputs:
              word: ${{ steps.say.outputs.word }}
            steps:
              - id: say
                run: echo word=brick >> $GITHUB_OUTPUT
          second:
            needs: first
            runs-on: base
            steps:
              - run: echo got ${{ needs.first.outputs.word }}
        """
    )
    assert told.lines("second", 0) == ["got brick"]
    assert told.result.jobs["first"].outputs == {"word": "brick"}


async def test_environment_is_layered_and_grows(bed):
    told = await bed.run(
        """
        on: push
        env: {A: workflow, B: workflow, C: workflow}
        jobs:
          build:
            runs-on: base
            env: {B: job, C: job}
            steps:
              - env: {C: step}
                run: echo $A $B $C
              - run: |
                  echo B=changed >> $GITHUB_ENV
                  echo /opt/one >> $GITHUB_PATH
                  echo /opt/two >> $GITHUB_PATH
              - run: |
                  echo $B ${{ env.B }}
                  echo $PATH
        """
    )
    assert told.lines(step=0) == ["workflow job step"]
    assert told.lines(step=2)[0] == "changed changed"
    assert told.lines(step=2)[1].startswith("/opt/two:/opt/one:/usr/local/sbin:")


async def test_a_failing_step_skips_what_follows_but_not_what_always_runs(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          build:
            runs-on: base
            steps:
              - run: exit 3
              - run: echo never
              - if: failure()
                run: echo ${{ job.status }}
              - if: always()
                run: echo always
        """
    )
    assert told.steps() == ["failure", "skipped", "success", "success"]
    assert told.lines(step=2) == ["failure"]
    [annotation] = told.annotations()
    assert (annotation.level, annotation.message) == ("error", "Process completed with exit code 3.")
    assert told.result.conclusion == "failure"
    [failed] = [event for event in told.events if isinstance(event, StepFinished) and event.exit_code]
    assert failed.exit_code == 3


async def test_continue_on_error_keeps_the_outcome(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          build:
            runs-on: base
            steps:
              - id: shaky
                continue-on-error: true
                run: exit 1
              - run: echo ${{ steps.shaky.outcome }} ${{ steps.shaky.conclusion }}
        """
    )
    assert told.steps() == ["success", "success"]
    assert told.lines(step=1) == ["failure success"]
    assert told.result.conclusion == "success"


async def test_needs_decide_which_jobs_run(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          broken: {runs-on: base, steps: [{run: exit 1}]}
          after: {needs: broken, runs-on: base, steps: [{run: echo no}]}
          anyway: {needs: broken, if: always(), runs-on: base, steps: [{run: 'echo ${{ needs.broken.result }}'}]}
        """
    )
    assert told.jobs() == {"broken": "failure", "after": "skipped", "anyway": "success"}
    assert told.lines("anyway", 0) == ["failure"]
    assert told.result.conclusion == "failure"


async def test_jobs_run_side_by_side_within_capacity(bed):
    bed.lender.capacity = 2
    told = await bed.run(
        """
        on: push
        jobs:
          build:
            runs-on: base
            strategy: {matrix: {n: [1, 2, 3, 4]}}
            steps: [{run: 'echo ${{ matrix.n }}'}]
        """
    )
    assert set(told.jobs().values()) == {"success"}
    assert len(told.jobs()) == 4
    assert bed.lender.most == 2


async def test_one_combination_that_fails_ends_the_others(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          build:
            runs-on: base
            strategy: {matrix: {word: [exit 1, wait]}}
            steps: [{run: '${{ matrix.word }}'}]
        """
    )
    assert told.jobs() == {"build.0": "failure", "build.1": "cancelled"}
    assert told.result.conclusion == "failure"


async def test_only_the_jobs_asked_for_and_what_they_need(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          one: {runs-on: base, steps: [{run: echo 1}]}
          two: {needs: one, runs-on: base, steps: [{run: echo 2}]}
          three: {runs-on: base, steps: [{run: echo 3}]}
        """,
        jobs=frozenset({"two"}),
    )
    assert told.jobs() == {"one": "success", "two": "success"}


async def test_an_unknown_label_is_said_and_fails_the_job(bed):
    told = await bed.run("on: push\njobs: {build: {runs-on: windows-latest, steps: [{run: echo}]}}\n")
    assert told.jobs() == {"build": "failure"}
    assert "'windows-latest' is not a label" in told.result.jobs["build"].message
    assert "firebrick-base" in told.result.jobs["build"].message
    assert bed.lender.guests == []


async def test_a_machine_that_does_not_start_fails_the_job_with_its_reason(bed):
    bed.lender.failure = BootError("the machine did not start", hint="Look at the console.")
    told = await bed.run("on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n")
    assert told.result.jobs["build"].message == "the machine did not start. Look at the console."
    assert told.result.conclusion == "failure"


async def test_a_machine_that_is_lost_fails_the_job(bed):
    async with bed.live(
        "on: push\njobs: {build: {runs-on: base, steps: [{run: wait}, {if: always(), run: echo}]}}\n"
    ) as run:
        async for event in run.events():
            if isinstance(event, StepStarted):
                await bed.lender.guests[0].close()
        result = await run.result()
    assert result.conclusion == "failure"
    assert result.jobs["build"].message


async def test_a_matrix_that_cannot_be_expanded_is_a_failure_with_its_place(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          build:
            runs-on: base
            strategy: {matrix: '${{ fromJSON(''{}'') }}'}
            steps: [{run: echo}]
        """
    )
    assert told.result.conclusion == "failure"
    assert "ci.yml (Line:" in told.result.message


async def test_an_image_nobody_has_fails_the_job_with_what_there_is(bed):
    bed.lender.failure = UnknownImageError("there is no image `x`", hint="Definitions: base.")
    told = await bed.run("on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n", image="x")
    assert told.result.jobs["build"].message == "there is no image `x`. Definitions: base."


async def test_a_mistake_of_our_own_fails_its_job_and_no_other(bed):
    bed.lender.failure = ZeroDivisionError("never so")
    told = await bed.run(
        "on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}, next: {runs-on: base, steps: [{run: echo}]}}\n"
    )
    assert told.jobs() == {"build": "failure", "next": "failure"}
    assert "mistake of its own: ZeroDivisionError: never so" in told.result.jobs["build"].message
    assert any("Traceback" in line for line in told.lines())


async def test_an_accident_of_the_run_itself_is_no_success(bed, monkeypatch):
    def accident(*_arguments, **_more):
        raise ZeroDivisionError

    monkeypatch.setattr("firebrick.node.run.run.plan", accident)
    with pytest.raises(ZeroDivisionError):
        async with bed.live("on: push\njobs: {build: {runs-on: base, steps: [{run: echo x}]}}\n") as run:
            events = [event async for event in run.events()]
            result = await run.result()
    assert (events[-1].conclusion, result.conclusion) == ("failure", "failure")
