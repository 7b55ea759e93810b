"""Whole runs on guests in memory: jobs that become what those before them say."""

from firebrick.node.event import JobsPlanned, JobStarted, RunStarted

LIST = """
        on: push
        jobs:
          list:
            runs-on: base
            outputs: {words: '${{ steps.it.outputs.words }}'}
            steps: [{id: it, run: 'echo words=%s >> $GITHUB_OUTPUT'}]
          each:
            needs: list
            %s
            strategy: {matrix: {word: '${{ fromJSON(needs.list.outputs.words) }}'}}
            runs-on: base
            outputs: {last: '${{ matrix.word }}'}
            steps: [{run: 'echo ${{ matrix.word }} ${{ strategy.job-total }}'}]
          after:
            needs: each
            if: always()
            runs-on: base
            steps: [{run: 'echo ${{ needs.each.result }} ${{ needs.each.outputs.last }}'}]
"""


async def test_a_matrix_over_the_output_of_a_job(bed):
    told = await bed.run(LIST % ('["a", "b", "c"]', ""))
    assert told.jobs() == {
        "list": "success", "each.0": "success", "each.1": "success", "each.2": "success", "after": "success",
    }  # fmt: skip
    assert [told.lines(f"each.{index}", 0) for index in range(3)] == [["a 3"], ["b 3"], ["c 3"]]
    started = next(event for event in told.events if isinstance(event, RunStarted))
    assert started.jobs == ("list", "each", "after")
    [planned] = [event for event in told.events if isinstance(event, JobsPlanned)]
    assert (planned.job, planned.jobs) == ("each", ("each.0", "each.1", "each.2"))
    names = {event.name for event in told.events if isinstance(event, JobStarted)}
    assert {"each (a)", "each (b)", "each (c)"} <= names


async def test_what_is_no_matrix_fails_the_job_and_not_the_rest(bed):
    for words, mistake in (("{}", "Expected a sequence"), ("[]", "does not contain any values"), ("oops", "parsing")):
        told = await bed.run(LIST % (words, ""))
        assert told.jobs() == {"list": "success", "each": "failure", "after": "success"}
        assert "Error when evaluating 'strategy' for job 'each'" in told.result.jobs["each"].message
        assert mistake in told.result.jobs["each"].message
        assert told.lines("after", 0) == ["failure"]


async def test_an_open_job_that_does_not_run_is_skipped_as_one(bed):
    told = await bed.run(LIST % ('["a"]', "if: github.ref == 'x'"))
    assert told.jobs() == {"list": "success", "each": "skipped", "after": "success"}
    assert told.lines("after", 0) == ["skipped"]


async def test_the_name_of_a_job_may_ask_for_outputs(bed):
    told = await bed.run(
        """
        on: push
        jobs:
          a: {runs-on: base, outputs: {v: '${{ steps.s.outputs.v }}'}, steps: [{id: s, run: echo v=1.5 >> $GITHUB_OUTPUT}]}
          b: {needs: a, name: 'Ship ${{ needs.a.outputs.v }}', runs-on: base, steps: [{run: echo}]}
        """
    )
    assert [event.name for event in told.events if isinstance(event, JobStarted)] == ["a", "Ship 1.5"]
    assert not any(isinstance(event, JobsPlanned) for event in told.events)


async def test_a_run_may_not_grow_without_end(bed, monkeypatch):
    monkeypatch.setattr("firebrick.node.run.shared.MAX_PLANNED", 4)
    told = await bed.run(LIST % ("[1, 2]", ""))
    assert told.result.conclusion == "success"
    told = await bed.run(LIST % ("[1, 2, 3]", ""))
    assert told.jobs() == {"list": "success", "each": "failure", "after": "success"}
    assert "The run would have more than 4 jobs" in told.result.jobs["each"].message


async def test_inputs_and_variables_of_the_order(bed):
    told = await bed.run(
        """
        on: {workflow_dispatch: {inputs: {deep: {type: boolean}}}}
        jobs:
          build:
            if: inputs.deep
            runs-on: base
            steps: [{run: 'echo ${{ inputs.deep }} ${{ vars.PLACE }}'}]
        """,
        inputs={"deep": True},
        variables={"PLACE": "here"},
    )
    assert told.lines("build", 0) == ["true here"]
