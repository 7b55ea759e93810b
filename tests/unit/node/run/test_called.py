"""Whole runs on guests in memory: workflows that call workflows."""

import asyncio
import textwrap

import msgspec

from firebrick.node.event import CancelCause, JobsPlanned, JobStarted, LogLine
from firebrick.node.order import Resources

BUILD = """
    on:
      workflow_call:
        inputs:
          word: {type: string, required: true}
          loud: {type: boolean}
          times: {type: number, default: 2}
        secrets:
          KEY: {required: false}
        outputs:
          said: {value: '${{ jobs.say.outputs.said }}-${{ jobs.say.result }}'}
    env: {WHERE: called}
    jobs:
      say:
        runs-on: base
        outputs: {said: '${{ steps.it.outputs.said }}'}
        steps:
          - id: it
            run: echo said=${{ inputs.word }} >> $GITHUB_OUTPUT
          - run: echo ${{ inputs.word }} ${{ inputs.loud }} ${{ inputs.times }} $WHERE $GITHUB_WORKFLOW $GITHUB_JOB ${{ secrets.KEY == 'k3y' }} ${{ secrets.OTHER }}
      after: {needs: say, runs-on: base, steps: [{run: echo after}]}
"""


def put(bed, **files):
    directory = bed.directory / "source" / ".github" / "workflows"
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.yml").write_text(textwrap.dedent(text))


async def test_the_jobs_of_a_called_workflow_are_jobs_of_the_run(bed):
    put(bed, build=BUILD)
    told = await bed.run(
        """
        name: main
        on: push
        env: {WHERE: caller}
        jobs:
          first:
            uses: ./.github/workflows/build.yml
            with: {word: brick, loud: true}
            secrets: {KEY: '${{ secrets.MINE }}'}
          second:
            needs: first
            runs-on: base
            steps: [{run: 'echo ${{ needs.first.result }} ${{ needs.first.outputs.said }}'}]
        """,
        secrets={"MINE": "k3y", "OTHER": "0ther"},
    )
    assert told.jobs() == {"first.say": "success", "first.after": "success", "second": "success"}
    assert told.lines("first.say", 1) == ["brick true 2 called main say true"]
    assert told.lines("second", 0) == ["success brick-success"]
    [planned] = [event for event in told.events if isinstance(event, JobsPlanned)]
    assert (planned.job, planned.jobs) == ("first", ("first.say", "first.after"))
    names = [event.name for event in told.events if isinstance(event, JobStarted)]
    assert names == ["first / say", "first / after", "second"]


async def test_secrets_may_be_inherited_and_are_masked_where_they_are_not(bed):
    put(bed, build=BUILD.replace("echo after", "echo 0ther"))
    text = "on: push\njobs: {a: {uses: ./.github/workflows/build.yml, with: {word: x}%s}}\n"
    told = await bed.run(text % ", secrets: inherit", secrets={"KEY": "k3y", "OTHER": "0ther"})
    assert told.lines("a.say", 1) == ["x false 2 called ci.yml say true ***"]
    told = await bed.run(text % "", secrets={"KEY": "k3y", "OTHER": "0ther"})
    assert told.lines("a.say", 1) == ["x false 2 called ci.yml say false"]
    assert told.lines("a.after", 0) == ["***"]


async def test_a_matrix_over_a_call_and_one_that_fails_ends_the_others(bed):
    put(
        bed,
        do="""
        on: {workflow_call: {inputs: {words: {type: string}}}}
        jobs:
          work: {runs-on: base, steps: [{run: '${{ inputs.words }}'}]}
          next: {needs: work, runs-on: base, steps: [{run: echo next}]}
        """,
    )
    told = await bed.run(
        """
        on: push
        jobs:
          all:
            strategy: {matrix: {words: [exit 1, wait]}}
            uses: ./.github/workflows/do.yml
            with: {words: '${{ matrix.words }}'}
          last: {needs: all, if: always(), runs-on: base, steps: [{run: 'echo ${{ needs.all.result }}'}]}
        """
    )
    assert told.jobs() == {
        "all.0.work": "failure",
        "all.0.next": "skipped",
        "all.1.work": "cancelled",
        "all.1.next": "cancelled",
        "last": "success",
    }
    assert told.lines("last", 0) == ["failure"]
    assert told.result.conclusion == "failure"


async def test_a_call_that_does_not_run_is_skipped_as_one_job(bed):
    put(bed, build=BUILD)
    told = await bed.run(
        """
        on: push
        jobs:
          a: {if: false, uses: ./.github/workflows/build.yml, with: {word: x}}
          b: {needs: a, if: always(), runs-on: base, steps: [{run: 'echo ${{ needs.a.result }}'}]}
        """
    )
    assert told.jobs() == {"a": "skipped", "b": "success"}
    assert told.lines("b", 0) == ["skipped"]


async def test_an_input_of_the_wrong_type_fails_the_calling_job(bed):
    put(bed, build=BUILD)
    told = await bed.run(
        """
        on: push
        jobs:
          a: {runs-on: base, outputs: {n: '${{ steps.s.outputs.n }}'}, steps: [{id: s, run: echo n=5 >> $GITHUB_OUTPUT}]}
          b: {needs: a, uses: ./.github/workflows/build.yml, with: {word: x, times: '${{ needs.a.outputs.n }}'}}
          c: {needs: a, uses: ./.github/workflows/build.yml, with: {word: x, times: '${{ fromJSON(needs.a.outputs.n) }}'}}
        """
    )
    assert told.jobs() == {"a": "success", "b": "failure", "c.say": "success", "c.after": "success"}
    assert "Unexpected value '5' for the input 'times', which is a number" in told.result.jobs["b"].message
    assert told.lines("c.say", 1)[0].startswith("x false 5 called")


async def test_what_is_wrong_with_calls_ends_the_run_before_it_begins(bed):
    put(bed, plain="on: push\njobs: {x: {runs-on: base, steps: [{run: echo}]}}\n")
    told = await bed.run(
        """
        on: push
        jobs:
          a: {uses: ./.github/workflows/none.yml}
          b: {uses: ./.github/workflows/plain.yml}
        """
    )
    assert told.jobs() == {}
    assert told.result.conclusion == "failure"
    first, second = told.result.message.splitlines()
    assert first.startswith("ci.yml (Line: 4, Col: 13): error parsing called workflow './.github/workflows/none.yml'")
    assert "missing a `on.workflow_call` trigger" in second


async def test_a_link_out_of_the_source_is_not_followed(bed):
    put(bed)
    (bed.directory / "secret.yml").write_text(textwrap.dedent(BUILD))
    (bed.directory / "source" / ".github" / "workflows" / "x.yml").symlink_to(bed.directory / "secret.yml")
    told = await bed.run("on: push\njobs: {a: {uses: ./.github/workflows/x.yml, with: {word: x}}}\n")
    assert told.result.conclusion == "failure"
    assert "symbolic link" in told.result.message
    assert bed.lender.guests == []


async def test_calls_nest_and_files_of_other_repositories_call_their_own(bed):
    put(bed, build="on: workflow_call\njobs: {x: {runs-on: base, steps: [{run: echo ours}]}}\n")
    bed.actions.add(
        "other/repo@v1",
        {
            ".github/workflows/outer.yml": "on: workflow_call\njobs: {in: {uses: ./.github/workflows/build.yml}}\n",
            ".github/workflows/build.yml": """
                on: workflow_call
                jobs: {x: {runs-on: base, steps: [{run: echo $GITHUB_REPOSITORY theirs}]}}
                """,
        },
    )
    text = "on: push\njobs: {a: {uses: other/repo/.github/workflows/%s}}\n"
    told = await bed.run(text % "outer.yml@v1")
    assert told.jobs() == {"a.in.x": "success"}
    assert told.lines("a.in.x", 0) == ["octo/hello theirs"]
    assert bed.actions.fetched == ["other/repo@v1"]
    told = await bed.run(text % "outer.yml@v2")
    assert told.result.conclusion == "failure"
    assert told.result.message.startswith("cannot call the workflow other/repo/.github/workflows/outer.yml@v2: ")
    assert told.result.message.endswith("Make it.")
    told = await bed.run(text % "none.yml@v1")
    assert "'other/repo/.github/workflows/none.yml@v1': workflow was not found." in told.result.message


async def test_a_node_calls_only_what_it_allows(bed):
    bed.settings = msgspec.structs.replace(bed.settings, actions_allow=("octo/*",))
    told = await bed.run("on: push\njobs: {a: {uses: other/repo/.github/workflows/x.yml@v1}}\n")
    assert told.result.conclusion == "failure"
    assert "not allowed on this node" in told.result.message
    assert bed.actions.fetched == []


async def test_cancel_reaches_the_jobs_of_called_workflows(bed):
    put(
        bed,
        do="""
        on: workflow_call
        jobs:
          work: {runs-on: base, steps: [{run: wait}]}
          tidy: {needs: work, if: always(), runs-on: base, steps: [{run: echo tidy}]}
        """,
    )
    async with bed.live("on: push\njobs: {a: {uses: ./.github/workflows/do.yml}}\n") as run:
        events = []
        async for event in run.events():
            events.append(event)
            if isinstance(event, JobStarted) and event.job == "a.work":
                await asyncio.sleep(0.1)
                run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.conclusion == "cancelled"
    assert {job: one.conclusion.value for job, one in result.jobs.items()} == {
        "a.work": "cancelled",
        "a.tidy": "success",
    }
    assert "tidy" in [event.text for event in events if isinstance(event, LogLine)]


async def test_a_name_no_file_can_have_is_a_failure_of_the_run(bed):
    put(bed, build=BUILD)
    told = await bed.run(f"on: push\njobs: {{a: {{uses: ./.github/workflows/{'x' * 300}.yml}}}}\n")
    assert told.result.conclusion == "failure"
    assert "cannot read the workflow" in told.result.message


class Stuck:
    """An `ActionSource` that never answers; `ended` is set when who asked has been let go."""

    def __init__(self):
        self.asked, self.ended = asyncio.Event(), asyncio.Event()

    async def fetch(self, action, say, held):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


FAR = "on: push\njobs: {a: {if: always(), uses: o/n/.github/workflows/x.yml@v1}}\n"


async def test_a_workflow_that_does_not_come_takes_no_longer_than_the_run_may(bed):
    bed.actions = stuck = Stuck()
    told = await bed.run(FAR, resources=Resources(timeout_s=0.1))
    assert stuck.ended.is_set()
    assert (told.result.conclusion, told.jobs()) == ("failure", {"a": "cancelled"})
    assert told.result.message.startswith("The run was not done within its limit of ")


async def test_a_run_that_fetches_a_workflow_can_be_cancelled(bed):
    bed.actions = stuck = Stuck()
    async with bed.live(FAR) as run:
        await stuck.asked.wait()
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert stuck.ended.is_set()
    assert (result.conclusion, result.message) == ("cancelled", "Cancelled.")
