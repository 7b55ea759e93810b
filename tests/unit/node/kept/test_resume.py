"""Going on from a checkpoint: with what the steps before left, a changed command, a changed secret."""

import msgspec
import pytest

from firebrick.node.event import JobStarted, MachineKept
from firebrick.node.kept import checkpoint
from firebrick.node.kept.rerun import Rerun
from firebrick.node.kept.shelf import Kind

FLOW = """
on: push
env: {WORD: '${{ secrets.WORD }}'}
jobs:
  first:
    runs-on: base
    outputs: {clay: '${{ steps.dig.outputs.clay }}'}
    steps: [{id: dig, run: echo clay=red >> $GITHUB_OUTPUT}]
  build:
    needs: first
    runs-on: base
    outputs: {made: '${{ steps.last.outputs.made }}'}
    steps:
      - id: one
        run: |
          echo kiln >> file
          echo temperature=900 >> $GITHUB_OUTPUT
          echo ADDED=soot >> $GITHUB_ENV
          echo /opt/kiln >> $GITHUB_PATH
          echo ::add-mask::ash-and-embers
      - name: the second
        run: |
          echo $WORD $ADDED ash-and-embers
          exit 1
      - id: last
        run: |
          echo ${{ steps.one.outputs.temperature }} ${{ needs.first.outputs.clay }} ${{ hashFiles('file') != '' }}
          echo $PATH
          echo made=brick >> $GITHUB_OUTPUT
"""


def changed(forks, **fields):
    forks.settings = msgspec.structs.replace(forks.settings, **fields)


def checkpoints(told):
    return [event.label for event in told.events if isinstance(event, MachineKept) and event.kind == "before"]


async def rerun(forks, text, step, *, command=None, **fields):
    entry = forks.pool().kept.find("run-1", "build", f"before-{step}", kind=Kind.BEFORE)
    return await forks.run(text, id="run-2", rerun=Rerun(entry=entry, command=command), **fields)


async def test_a_run_goes_on_with_another_command_and_says_so(forks):
    changed(forks, checkpoint="before:2")
    first = await forks.run(FLOW, secrets={"WORD": "mortar"})
    assert first.steps() == ["success", "failure", "skipped"]
    assert checkpoints(first) == ["before-2"]
    assert any(line.startswith("Checkpoint before this step (") for line in first.lines(step=1))

    again = await rerun(forks, FLOW, 2, command="echo better ash-and-embers", secrets={"WORD": "mortar"})
    assert again.jobs() == {"build": "success"}
    assert again.steps() == ["success", "success"]
    assert again.lines(step=0) == []
    assert again.lines(step=1) == ["better ***"]
    temperature, path = again.lines(step=2)
    assert temperature == "900 red true"
    assert path.startswith("/opt/kiln:")
    assert again.result.jobs["build"].outputs == {"made": "brick"}
    [started] = [event for event in again.events if isinstance(event, JobStarted)]
    assert started.resumed == "run-1 before step 2"
    assert any(line.startswith("Going on from run-1 before step 2") for line in again.lines(step=-1))


async def test_a_changed_secret_is_the_one_that_is_seen_and_masked(forks):
    changed(forks, checkpoint="step")
    first = await forks.run(FLOW, secrets={"WORD": "old-mortar"})
    assert checkpoints(first) == ["before-1", "before-1", "before-2"]
    again = await rerun(forks, FLOW, 2, command="echo $WORD new-mortar old", secrets={"WORD": "new-mortar"})
    assert again.lines(step=1) == ["*** *** old"]


async def test_what_a_step_does_after_its_checkpoint_is_not_in_it(forks):
    text = """
    on: push
    jobs:
      build:
        runs-on: base
        steps:
          - run: echo one >> file
          - env: {FIREBRICK_CHECKPOINT: true}
            run: |
              echo two >> file
              echo ${{ hashFiles('file') }}
    """
    first = await forks.run(text)
    assert checkpoints(first) == ["before-2"]
    again = await rerun(forks, text, 2)
    assert again.lines(step=1) == first.lines(step=1)[1:]
    assert len(again.lines(step=1)) == 1


@pytest.mark.parametrize(
    ("policy", "at_workflow", "at_second", "labels"),
    [
        ("asked", "true", "true", ["before-1", "before-2"]),
        ("asked", "true", "false", ["before-1"]),
        ("asked", "false", "true", ["before-2"]),
        ("none", "true", "true", []),
        ("before:1", "true", "true", ["before-1"]),
    ],
)
async def test_who_asks_for_checkpoints(forks, policy, at_workflow, at_second, labels):
    changed(forks, checkpoint=policy)
    told = await forks.run(
        f"""
        on: push
        env: {{FIREBRICK_CHECKPOINT: {at_workflow}}}
        jobs:
          build:
            runs-on: base
            steps:
              - run: echo
              - env: {{FIREBRICK_CHECKPOINT: {at_second}}}
                run: echo
              - if: false
                run: echo
        """
    )
    wanted = labels if at_workflow == "false" or policy != "asked" else [*labels]
    assert checkpoints(told) == wanted


async def test_a_workflow_that_has_no_such_step_any_more(forks):
    changed(forks, checkpoint="step")
    await forks.run(FLOW, secrets={"WORD": "mortar"})
    shorter = "on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n"
    told = await rerun(forks, shorter, 2)
    assert told.result.conclusion == "failure"
    assert "has no step 2 any more" in told.result.message
    other = "on: push\njobs: {other: {runs-on: base, steps: [{run: echo}]}}\n"
    assert "The workflow has no job 'build' any more" in (await rerun(forks, other, 2)).result.message


async def test_a_step_without_a_script_has_none_to_be_another(forks):
    changed(forks, checkpoint="step")
    text = "on: push\njobs: {build: {runs-on: base, steps: [{uses: actions/checkout@v4}]}}\n"
    await forks.run(text)
    told = await rerun(forks, text, 1, command="echo")
    assert told.result.message.endswith(
        "(Line: 2, Col: 39): Step 1 of the job 'build' has no script that --command could stand for (expected: a step with `run`)"
    )


async def test_a_state_is_read_as_something_hostile(forks):
    changed(forks, checkpoint="step")
    await forks.run(FLOW, secrets={"WORD": "mortar"})
    pool = forks.pool()
    entry = pool.kept.find("run-1", "build", "before-2")
    import hashlib

    async with pool.reopen(entry, purpose="x") as loan:
        state = await checkpoint.collect(loan.guest, entry.record.state)
        assert "mortar" not in state.added.values()
        for data, said in [
            (b"\xc1", "cannot be read"),
            (msgspec.msgpack.encode({"version": 1}), "cannot be read"),
            (msgspec.msgpack.encode(msgspec.structs.replace(state, version=9)), "another release"),
            (msgspec.msgpack.encode(msgspec.structs.replace(state, masks=("x",) * 1001)), "cannot be read"),
        ]:
            await loan.guest.files.write(checkpoint.STATE, data)
            with pytest.raises(Exception, match=said):
                await checkpoint.collect(loan.guest, hashlib.sha256(data).hexdigest())
        await checkpoint.clear(loan.guest)
        with pytest.raises(Exception, match="cannot find the state"):
            await checkpoint.collect(loan.guest, entry.record.state)


async def test_sources_that_have_moved_on_are_told(forks):
    changed(forks, checkpoint="step")
    await forks.run(FLOW, secrets={"WORD": "mortar"})
    entry = forks.pool().kept.find("run-1", "build", "before-2")
    moved = msgspec.structs.replace(entry.record, sha="b" * 40)
    told = await forks.run(
        FLOW, id="run-2", rerun=Rerun(entry=type(entry)(moved, entry.path)), secrets={"WORD": "mortar"}
    )
    assert any(f"came from {'b' * 40}" in line for line in told.lines(step=-1))


CALLING = """
on: push
jobs:
  first:
    runs-on: base
    outputs: {clay: '${{ steps.dig.outputs.clay }}'}
    steps: [{id: dig, run: echo clay=red >> $GITHUB_OUTPUT}]
  kiln:
    needs: first
    strategy: {fail-fast: false, matrix: {heat: [800, 900]}}
    uses: ./.github/workflows/outer.yml
    with: {clay: '${{ needs.first.outputs.clay }}', heat: '${{ matrix.heat }}'}
    secrets: inherit
"""
OUTER = """
on: {workflow_call: {inputs: {clay: {type: string}, heat: {type: string}}}}
jobs:
  before: {runs-on: base, outputs: {wood: oak}, steps: [{run: echo}]}
  fire:
    name: Fire it
    needs: before
    uses: ./.github/workflows/inner.yml
    with: {what: '${{ inputs.clay }} ${{ inputs.heat }} ${{ needs.before.outputs.wood }}'}
    secrets: {KEY: '${{ secrets.WORD }}'}
"""
INNER = """
on:
  workflow_call:
    inputs: {what: {type: string}}
    secrets: {KEY: {required: true}}
jobs:
  stack: {runs-on: base, outputs: {how: high}, steps: [{run: echo}]}
  burn:
    needs: stack
    runs-on: base
    steps:
      - run: echo ash >> file
      - run: exit 1
      - run: echo ${{ inputs.what }} ${{ needs.stack.outputs.how }} ${{ secrets.KEY == 'mortar' }} ${{ hashFiles('file') != '' }}
"""


async def test_a_job_of_a_called_workflow_can_be_gone_on_with(forks):
    folder = forks.directory / "source/.github/workflows"
    folder.mkdir(parents=True)
    (folder / "outer.yml").write_text(OUTER)
    (folder / "inner.yml").write_text(INNER)
    changed(forks, checkpoint="before:2")
    first = await forks.run(CALLING, secrets={"WORD": "mortar"})
    assert first.jobs()["kiln.1.fire.burn"] == "failure"
    kept = forks.pool().kept
    entry = kept.find("run-1", "kiln (900) / Fire it / burn", kind=Kind.BEFORE)
    assert entry == kept.find("run-1", "kiln.1.fire.burn", kind=Kind.BEFORE)
    assert entry == kept.find("run-1", "kiln (900)/Fire it/burn", kind=Kind.BEFORE)

    rerun = Rerun(entry=entry, command="echo better")
    again = await forks.run(CALLING, id="run-2", rerun=rerun, secrets={"WORD": "mortar"})
    assert again.jobs() == {"kiln.1.fire.burn": "success"}
    assert again.lines("kiln.1.fire.burn", 1) == ["better"]
    assert again.lines("kiln.1.fire.burn", 2) == ["red 900 oak high true true"]
    assert again.result.conclusion == "success"


async def test_a_called_workflow_that_has_changed_is_said(forks):
    folder = forks.directory / "source/.github/workflows"
    folder.mkdir(parents=True)
    (folder / "outer.yml").write_text(OUTER)
    (folder / "inner.yml").write_text(INNER)
    changed(forks, checkpoint="before:2")
    await forks.run(CALLING, secrets={"WORD": "mortar"})
    entry = forks.pool().kept.find("run-1", "kiln.1.fire.burn", kind=Kind.BEFORE)
    (folder / "inner.yml").write_text(INNER.replace("burn:", "other:"))
    again = await forks.run(CALLING, id="run-2", rerun=Rerun(entry=entry), secrets={"WORD": "mortar"})
    assert again.result.conclusion == "failure"
    assert any("has no job 'kiln.1.fire.burn' any more" in job.message for job in again.result.jobs.values())
