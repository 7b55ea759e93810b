"""What actions have left to do is carried along: from a checkpoint, and from the common part of a matrix."""

import msgspec
import pytest

from firebrick.node.kept.rerun import Rerun
from firebrick.node.kept.shelf import Kind
from tests.unit.node.matrices import MARK, run_of, without

JAVASCRIPT = {
    "action.yml": """
        name: tool
        runs: {using: node24, pre: pre.js, main: main.js, post: post.js}
        """,
    "pre.js": "echo pre\necho ::save-state name=pre::early\n",
    "main.js": "echo main $STATE_pre\necho ::save-state name=main::late\necho ::set-output name=word::clay\n",
    "post.js": "echo post $STATE_pre $STATE_main\n",
}
COMPOSITE = {
    "action.yml": """
        name: both
        outputs: {word: {value: '${{ steps.inner.outputs.word }}'}}
        runs:
          using: composite
          steps:
            - id: inner
              uses: octo/tool@v1
        """
}


@pytest.fixture
def bed(forks):
    forks.actions.add("octo/tool@v1", JAVASCRIPT)
    forks.actions.add("octo/both@v1", COMPOSITE)
    return forks


@pytest.mark.parametrize("action", ["octo/tool@v1", "octo/both@v1"])
async def test_what_comes_after_the_last_step_comes_after_a_checkpoint_too(bed, action):
    bed.settings = msgspec.structs.replace(bed.settings, checkpoint="before:3")
    text = f"""
    on: push
    jobs:
      build:
        runs-on: base
        steps:
          - id: tool
            uses: {action}
          - run: exit 1
          - if: always()
            run: echo ${{{{ steps.tool.outputs.word }}}}
    """
    first = await bed.run(text)
    assert first.steps() == ["success", "success", "failure", "success", "success"]
    entry = bed.pool().kept.find("run-1", "build", kind=Kind.BEFORE)
    assert (entry.record.step, entry.record.index, entry.record.label) == (2, 1, "before-3")

    again = await bed.run(text, id="run-2", rerun=Rerun(entry=entry, command="echo fixed"))
    assert again.steps() == ["success", "success", "success"]
    assert again.lines(step=2) == ["fixed"]
    assert again.lines(step=3) == ["clay"]
    assert again.lines(step=4) == ["post early late"]
    assert again.jobs() == {"build": "success"}


@pytest.mark.parametrize("action", ["octo/tool@v1", "octo/both@v1"])
async def test_a_matrix_with_an_action_in_its_common_part(bed, action):
    text = f"""
    on: push
    jobs:
      build:
        runs-on: base
        strategy: {{matrix: {{word: [clay, sand]}}}}
        steps:
          - id: tool
            uses: {action}
          {MARK}
          - run: echo ${{{{ steps.tool.outputs.word }}}} ${{{{ matrix.word }}}}
    """
    plain = await bed.run(without(text))
    forked = await bed.run(text)
    assert forked.lines("build.1", 4) == ["post early late"]
    assert run_of(forked) == run_of(plain)


async def test_a_failing_phase_of_an_action_keeps_its_program(bed):
    bed.actions.add("octo/broken@v1", {**JAVASCRIPT, "post.js": "exit 4\n"})
    told = await bed.run("on: push\njobs: {build: {runs-on: base, steps: [{uses: octo/broken@v1}]}}\n")
    assert told.steps() == ["success", "success", "failure"]
    [entry] = bed.pool().kept.entries()
    assert (entry.record.label, entry.record.index, entry.record.exit_code) == ("3", 0, 4)
    assert entry.record.name == "Post Run octo/broken@v1"
    assert entry.record.argv[-1].endswith("/post.js")
    assert entry.record.environment["STATE_main"] == "late"


async def test_problem_matchers_are_carried_along(bed):
    bed.settings = msgspec.structs.replace(bed.settings, checkpoint="before:2")
    problems = '{"problemMatcher": [{"owner": "OWNER", "pattern": [{"regexp": "^OWNER: (.*)$", "message": 1}]}]}'
    add = "\n".join(
        f"              echo '{problems.replace('OWNER', owner)}' >> {owner}.json\n              echo ::add-matcher::{owner}.json"
        for owner in ("kiln", "oven")
    )
    text = f"""
    on: push
    jobs:
      build:
        runs-on: base
        steps:
          - run: |
{add}
              echo ::remove-matcher owner=oven::
          - run: |
              echo "kiln: too hot"
              echo "oven: too cold"
    """
    first = await bed.run(text)
    entry = bed.pool().kept.find("run-1", "build", kind=Kind.BEFORE)
    again = await bed.run(text, id="run-2", rerun=Rerun(entry=entry))
    for told in (first, again):
        assert [annotation.message for annotation in told.annotations() if annotation.step == 1] == ["too hot"]


async def test_a_matrix_that_is_known_late_is_gone_on_with(bed):
    bed.settings = msgspec.structs.replace(bed.settings, checkpoint="before:2")
    text = """
    on: push
    jobs:
      first:
        runs-on: base
        outputs: {words: '["clay", "sand"]'}
        steps: [{run: echo}]
      build:
        needs: first
        runs-on: base
        strategy: {matrix: {word: '${{ fromJSON(needs.first.outputs.words) }}'}}
        steps:
          - run: echo one
          - run: echo ${{ matrix.word }}
    """
    await bed.run(text)
    entry = bed.pool().kept.find("run-1", "build.1")
    again = await bed.run(text, id="run-2", rerun=Rerun(entry=entry, command="echo better ${{ matrix.word }}"))
    assert again.jobs() == {"build.1": "success"}
    assert again.steps("build.1") == ["success"]
