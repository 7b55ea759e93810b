"""Concurrency groups among runs and jobs of one node, on guests in memory."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from firebrick.node.event import CancelCause, JobStarted, LogLine
from firebrick.node.journal import Journal
from firebrick.node.order import Resources
from firebrick.node.run.run import start_run
from firebrick.node.run.turnstile import Turnstile, group_key
from firebrick.workflow.policy import GroupRequest


class Node:
    """Runs of one node: they share a turnstile."""

    def __init__(self, bed):
        self.bed = bed
        self.turnstile = Turnstile()

    @asynccontextmanager
    async def run(self, text, name, **fields):
        order = self.bed.order(text, **fields)
        object.__setattr__(order, "id", name)
        journal = Journal.create(self.bed.directory / "runs")
        async with start_run(order, self.bed.lender, self.bed.settings, journal, turnstile=self.turnstile) as run:
            yield run


async def started(run, job):
    async for event in run.events():
        if isinstance(event, JobStarted) and event.job == job:
            return


def workflow(concurrency, words="wait"):
    return f"on: push\nconcurrency: {concurrency}\njobs: {{build: {{runs-on: base, steps: [{{run: {words}}}]}}}}\n"


async def test_a_newer_run_waits_and_takes_the_place_of_the_one_that_waited(bed):
    node = Node(bed)
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        first = await stack.enter_async_context(node.run(workflow("deploy"), "r1"))
        await started(first, "build")
        second = await stack.enter_async_context(node.run(workflow("deploy", "echo"), "r2"))
        await asyncio.sleep(0.05)
        third = await stack.enter_async_context(node.run(workflow("Deploy", "echo"), "r3"))
        result = await second.result()
        assert result.conclusion == "cancelled"
        assert "took its place in the concurrency group" in result.message
        assert {job: one.conclusion.value for job, one in result.jobs.items()} == {"build": "cancelled"}
        assert bed.lender.lent == 1
        first.cancel(CancelCause.USER)
        assert (await first.result()).conclusion == "cancelled"
        assert (await third.result()).conclusion == "success"
    assert node.turnstile.is_empty


async def test_cancel_in_progress_ends_the_run_that_is_there(bed):
    node = Node(bed)
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        first = await stack.enter_async_context(node.run(workflow("{group: x, cancel-in-progress: true}"), "r1"))
        await started(first, "build")
        text = workflow("{group: x, cancel-in-progress: \"${{ github.ref != '' }}\"}", "echo")
        second = await stack.enter_async_context(node.run(text, "r2"))
        result = await first.result()
        assert result.conclusion == "cancelled"
        assert "took its place" in result.message
        assert (await second.result()).conclusion == "success"
    assert node.turnstile.is_empty


async def test_a_run_waits_no_longer_than_it_may_take_and_its_time_begins_then(bed):
    node = Node(bed)
    limit = Resources(timeout_s=0.5)
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        first = await stack.enter_async_context(node.run(workflow("{group: x, queue: max}"), "r1"))
        await started(first, "build")
        second = await stack.enter_async_context(
            node.run(workflow("{group: x, queue: max}", "wait"), "r2", resources=limit)
        )
        said = [event.text async for event in second.events() if isinstance(event, LogLine)]
        result = await second.result()
        assert result.conclusion == "failure"
        assert result.message.startswith("The run was not done within its limit of 0.00833333 minutes. ")
        assert [one.message for one in result.jobs.values()] == [result.message]
        assert {job: one.conclusion.value for job, one in result.jobs.items()} == {"build": "cancelled"}
        assert said == ["The run waits for the concurrency group 'x'."]
        third = await stack.enter_async_context(
            node.run(workflow("{group: x, queue: max}", "echo"), "r3", resources=limit)
        )
        await asyncio.sleep(0.3)
        first.cancel(CancelCause.USER)
        assert (await third.result()).conclusion == "success"
        assert third._timer.cancelled()
    assert node.turnstile.is_empty


async def test_a_run_that_waits_can_be_cancelled_and_left(bed):
    node = Node(bed)
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        first = await stack.enter_async_context(node.run(workflow("{group: x, queue: max}"), "r1"))
        await started(first, "build")
        async with node.run(workflow("{group: x, queue: max}"), "r2") as second:
            await asyncio.sleep(0.05)
            second.cancel(CancelCause.USER)
            assert (await second.result()).conclusion == "cancelled"
        async with node.run(workflow("{group: x, queue: max}"), "r3"):
            await asyncio.sleep(0.05)
        first.cancel(CancelCause.USER)
    assert node.turnstile.is_empty


async def test_jobs_of_one_group_run_one_after_the_other(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          a: {concurrency: {group: '${{ github.ref }}', queue: max}, runs-on: base, steps: [{run: echo}]}
          b: {concurrency: {group: refs/heads/main, queue: max}, runs-on: base, steps: [{run: echo}]}
          c:
            strategy: {matrix: {v: [1, 2]}}
            concurrency: {group: refs/heads/main, queue: max}
            runs-on: base
            steps: [{run: echo}]
        """
    )
    assert told.jobs() == {"a": "success", "b": "success", "c.0": "success", "c.1": "success"}
    assert bed.lender.most == 1


async def test_of_a_single_queue_the_job_that_waited_is_cancelled(bed):
    told = await bed.run(
        "on: push\njobs:\n"
        + "".join(f"  {name}: {{concurrency: g, runs-on: base, steps: [{{run: echo}}]}}\n" for name in ("a", "b", "c"))
    )
    assert told.jobs() == {"a": "success", "b": "cancelled", "c": "success"}
    assert told.lines("b") == ["Waiting for the concurrency group 'g'."]


async def test_a_job_of_the_group_of_its_own_run_is_a_deadlock(bed):
    told = await bed.run(
        """
        on: push
        concurrency: g
        jobs:
          a: {concurrency: G, runs-on: base, steps: [{run: echo}]}
          b: {runs-on: base, steps: [{run: echo}]}
        """
    )
    assert told.jobs() == {"a": "cancelled", "b": "success"}
    assert "deadlock" in told.lines("a")[0]


async def test_a_group_without_a_name_is_none_and_one_that_cannot_be_evaluated_fails_the_job(bed):
    text = 'on: push\njobs: {a: {concurrency: "${{ %s }}", runs-on: base, steps: [{run: echo}]}}\n'
    told = await bed.run(text % "github.nothing")
    assert told.jobs() == {"a": "success"}
    told = await bed.run(text % "fromJSON('[]')")
    assert told.jobs() == {"a": "failure"}
    assert "A sequence was not expected" in told.result.jobs["a"].message


async def test_a_called_workflow_has_its_own_group(bed):
    directory = bed.directory / "source" / ".github" / "workflows"
    directory.mkdir(parents=True)
    (directory / "x.yml").write_text(
        "on: workflow_call\nconcurrency: {group: in, queue: max}\njobs: {x: {runs-on: base, steps: [{run: echo}]}}\n"
    )
    told = await bed.run(
        "on: push\njobs: {a: {uses: ./.github/workflows/x.yml}, b: {uses: ./.github/workflows/x.yml, concurrency: out}}\n"
    )
    assert told.jobs() == {"a.x": "success", "b.x": "success"}
    assert bed.lender.most == 1


async def test_the_time_a_cancelled_job_still_has_is_its_own(bed):
    text = """
        on: push
        jobs:
          build:
            cancel-timeout-minutes: %s
            runs-on: base
            steps: [{run: wait}, {if: always(), run: wait}]
        """
    async with bed.live(text % "0.002") as run:
        await started(run, "build")
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.jobs["build"].conclusion == "cancelled"
    assert asyncio.get_running_loop().time() - began < 0.9
    told = await bed.run(text.replace("wait", "echo") % "-1")
    assert told.jobs() == {"build": "failure"}


async def test_what_outlives_a_cancellation_ends_with_its_time(bed):
    text = """
        on: push
        jobs:
          build: {runs-on: base, steps: [{run: wait}]}
          tidy: {needs: build, if: always(), runs-on: base, steps: [{run: 'echo ${{ needs.build.result }}'}]}
          stuck: {needs: tidy, if: cancelled(), runs-on: base, steps: [{run: wait}]}
          never: {needs: build, runs-on: base, steps: [{run: echo}]}
        """
    bed.settings = msgspec.structs.replace(bed.settings, cancel_s=0.6)
    async with bed.live(text) as run:
        await started(run, "build")
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert {job: one.conclusion.value for job, one in result.jobs.items()} == {
        "build": "cancelled",
        "tidy": "success",
        "stuck": "cancelled",
        "never": "cancelled",
    }
    assert result.conclusion == "cancelled"
    assert 0.5 < asyncio.get_running_loop().time() - began < 5


async def test_nothing_outlives_the_time_of_the_run(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          build: {runs-on: base, steps: [{run: wait}]}
          tidy: {needs: build, if: always(), runs-on: base, steps: [{run: echo}]}
        """,
        resources=Resources(timeout_s=0.3),
    )
    assert told.jobs()["tidy"] != "success"
    assert told.result.conclusion == "failure"


async def test_groups_are_of_a_repository(bed):
    assert group_key("a/b", "x") != group_key("a/c", "x")
    assert group_key("A/b", "X") == group_key("a/B", "x")


async def test_a_member_that_leaves_before_its_turn_is_forgotten():
    turnstile, never = Turnstile(), asyncio.Event()
    asked = GroupRequest(group="x")

    def fail():
        raise AssertionError

    async with turnstile.pass_through("k", asked, "one", cancel=fail, cancelled=never) as admitted:
        assert admitted

        async def wait():
            async with turnstile.pass_through("k", asked, "two", cancel=fail, cancelled=never):
                raise AssertionError

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert turnstile.is_empty
