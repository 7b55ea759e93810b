"""Whole runs on guests in memory: a next attempt of a run, jobs that their environment does not let in, and the token."""

import textwrap
from dataclasses import replace

import pytest

from firebrick.node.earlier import Earlier, EarlierFile
from firebrick.node.event import ArtifactStored, Conclusion, LogLine
from firebrick.node.order import EnvironmentOrder
from firebrick.workflow.outcome import JobOutcome
from tests.scenarios.shell import shell_programs
from tests.unit.node.conftest import DoubleLender, Told


@pytest.fixture
def bed(bed):
    return replace(bed, lender=DoubleLender(programs=shell_programs([])))


def said(told: Told) -> list[str]:
    """What the steps of all jobs wrote."""
    return [event.text for event in told.events if isinstance(event, LogLine) and event.stream == "stdout"]


CHAIN = """
    on: push
    jobs:
      build:
        runs-on: base
        outputs: {word: '${{ steps.it.outputs.word }}'}
        steps: [{id: it, run: 'echo word=new >> $GITHUB_OUTPUT'}, {run: echo building}]
      lint: {runs-on: base, steps: [{run: echo linting}]}
      test:
        needs: build
        runs-on: base
        strategy: {matrix: {on: [a, b]}, fail-fast: false}
        steps: [{run: 'echo ${{ matrix.on }} ${{ needs.build.outputs.word }} $GITHUB_RUN_ATTEMPT $GITHUB_RUN_ID'}]
      ship: {needs: [test, lint], runs-on: base, steps: [{run: echo shipping}]}
"""


def ended(**jobs: str) -> dict[str, JobOutcome]:
    return {key.replace("_", "."): JobOutcome(result) for key, result in jobs.items()}


async def test_what_stays_is_not_run_and_is_seen_as_it_ended(bed):
    jobs = {
        "build": JobOutcome("success", {"word": "old"}),
        "lint": JobOutcome("success"),
        "test.0": JobOutcome("success"),
    }
    told = await bed.run(CHAIN, earlier=Earlier(jobs=jobs), number=2, origin="the-run")
    assert set(told.jobs().values()) == {"success"}
    assert said(told) == ["b old 2 the-run", "shipping"]


async def test_a_combination_that_stays_is_not_run_with_the_others(bed):
    first = await bed.run(CHAIN)
    one, other = sorted(key for key in first.jobs() if key.startswith("test"))
    again = await bed.run(
        CHAIN, earlier=Earlier(jobs=ended(build="success", lint="success") | {one: JobOutcome("success")})
    )
    assert sum(line.startswith(("a ", "b ")) for line in said(again)) == 1
    assert {one, other, "ship"} <= set(again.jobs())
    assert said(again)[-1] == "shipping"


async def test_whatever_needs_what_is_run_is_run_however_it_ended(bed):
    told = await bed.run(CHAIN, earlier=Earlier(jobs=ended(lint="success", ship="success")))
    assert "linting" not in said(told)
    assert said(told)[0] == "building"
    assert said(told)[-1] == "shipping"


async def test_a_job_that_failed_and_stays_is_a_failure_of_the_run(bed):
    told = await bed.run(CHAIN, earlier=Earlier(jobs=ended(build="failure", lint="success")))
    assert said(told) == []
    assert told.result.conclusion is Conclusion.FAILURE
    assert told.jobs()["ship"] == "skipped"


async def test_jobs_of_a_called_workflow_stay_too(bed):
    directory = bed.directory / "source" / ".github" / "workflows"
    directory.mkdir(parents=True)
    (directory / "called.yml").write_text(
        textwrap.dedent(
            """
            on: workflow_call
            jobs:
              one: {runs-on: base, steps: [{run: echo one}]}
              two: {needs: one, runs-on: base, steps: [{run: echo two}]}
            """
        )
    )
    text = """
    on: push
    jobs:
      call: {uses: ./.github/workflows/called.yml}
      after: {needs: call, runs-on: base, steps: [{run: echo after}]}
      again: {needs: after, uses: ./.github/workflows/called.yml}
    """
    stays = {"call.one": "success", "call.two": "success", "again.one": "success", "again.two": "success"}
    jobs = {key: JobOutcome(result) for key, result in stays.items()}
    told = await bed.run(text, earlier=Earlier(jobs={**jobs, "after": JobOutcome("success")}))
    assert said(told) == []
    # `after` is run: so is all that is called by what needs it.
    assert said(await bed.run(text, earlier=Earlier(jobs=jobs))) == ["after", "one", "two"]
    del jobs["call.two"]
    assert said(await bed.run(text, earlier=Earlier(jobs=jobs))) == ["two", "after", "one", "two"]


async def test_what_a_job_that_stays_had_stored_is_there(bed):
    before = bed.directory / "before"
    (before / "out").mkdir(parents=True)
    (before / "out" / "a").write_text("content")
    file = EarlierFile(job="build", name="out", path="out/a", size=7, sha256="0" * 64)
    earlier = Earlier(jobs=ended(build="success"), files=(file,), directory=before)
    told = await bed.run("on: push\njobs: {build: {runs-on: base, steps: [{run: echo no}]}}", earlier=earlier)
    (stored,) = [event for event in told.events if isinstance(event, ArtifactStored)]
    assert (stored.job, stored.name, stored.path, stored.sha256) == ("build", "out", "out/a", "0" * 64)
    assert (bed.directory / "artifacts" / "out" / "a").read_text() == "content"
    (before / "out" / "a").unlink()
    (bed.directory / "artifacts" / "out" / "a").unlink()
    told = await bed.run("on: push\njobs: {build: {runs-on: base, steps: [{run: echo no}]}}", earlier=earlier)
    assert told.jobs() == {"build": "failure"}


DEPLOY = """
    on: push
    jobs:
      build: {runs-on: base, steps: [{run: 'echo built ${{ vars.WHERE }} ${{ secrets.KEY }}'}]}
      deploy:
        needs: build
        runs-on: base
        environment: {name: 'Prod${{ vars.SUFFIX }}', url: 'https://x/${{ steps.s.outputs.u }}'}
        env: {WHERE: '${{ vars.WHERE }}'}
        steps: [{run: 'test "${{ secrets.KEY }}" = pr0d; echo $WHERE ${{ vars.OTHER }} ${{ secrets.KEY }}'}]
      after: {needs: deploy, if: always(), runs-on: base, steps: [{run: echo after}]}
      apart: {if: 'false', runs-on: base, environment: produktion, steps: [{run: echo apart}]}
"""
GIVEN = {"variables": {"WHERE": "here", "OTHER": "too", "SUFFIX": "uktion"}}


async def test_what_an_environment_gives_is_for_its_jobs_alone(bed):
    environment = EnvironmentOrder(secrets={"key": "pr0d"}, variables={"where": "there"})
    told = await bed.run(DEPLOY, environments={"produktion": environment}, secrets={"KEY": "every"}, **GIVEN)
    assert said(told) == ["built here ***", "there too ***", "after"]
    assert told.jobs() == {"apart": "skipped", "build": "success", "deploy": "success", "after": "success"}
    assert "pr0d" not in repr(told.events)


async def test_a_job_waits_and_so_does_what_needs_it(bed):
    environment = EnvironmentOrder(waits="It waits for an approval.")
    told = await bed.run(DEPLOY, environments={"produktion": environment}, **GIVEN)
    assert told.result.conclusion is Conclusion.WAITING
    assert told.jobs() == {"apart": "skipped", "build": "success", "deploy": "waiting", "after": "waiting"}
    assert told.result.jobs["deploy"].environment == "Produktion"
    assert told.result.jobs["after"].environment == ""
    # Let in, it goes on where it was.
    jobs = ended(build="success", apart="skipped")
    on = await bed.run(
        DEPLOY,
        environments={"produktion": EnvironmentOrder(secrets={"KEY": "pr0d"})},
        earlier=Earlier(jobs=jobs),
        **GIVEN,
    )
    assert said(on) == ["here too ***", "after"]
    assert on.result.conclusion is Conclusion.SUCCESS


async def test_a_job_that_is_refused_fails(bed):
    environment = EnvironmentOrder(refusal="It was rejected.")
    told = await bed.run(DEPLOY, environments={"produktion": environment}, **GIVEN)
    assert told.jobs()["deploy"] == "failure"
    assert told.result.jobs["deploy"].message == "It was rejected."
    assert told.jobs()["after"] == "success"


async def test_the_token_is_the_secret_of_its_name_and_in_no_name(bed):
    text = """
    on: push
    run-name: 'run [${{ github.token }}]'
    jobs:
      build:
        name: 'job [${{ github.token }}]'
        runs-on: base
        env: {TOKEN: '${{ github.token }}'}
        steps: [{run: 'test "$TOKEN" = t0ken && test "${{ github.token }}" = t0ken && echo "$TOKEN ${{ github.secret_source }}"'}]
    """
    told = await bed.run(text, secrets={"github_token": "t0ken"})
    assert said(told) == ["*** Actions"]
    assert "t0ken" not in repr(told.events)
    assert "run []" in repr(told.events)
    assert "job []" in repr(told.events)
