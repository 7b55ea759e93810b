"""What `firebrick run` makes of an event, inputs and variables."""

import pytest

from firebrick.cli.errors import USAGE, UsageError, report
from firebrick.cli.event import EventWish
from firebrick.cli.order import Wish, make_order
from firebrick.node.order import Resources, Source
from firebrick.workflow.problem import WorkflowError

CI = """
on:
  push: {branches: [main]}
  workflow_dispatch: {inputs: {deep: {type: boolean}}}
jobs: {a: {runs-on: x, steps: [run: x]}}
"""


@pytest.fixture
def order(tmp_path, monkeypatch):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "ci.yml").write_text(CI)

    async def describe(_):
        return Source(
            path=tmp_path, repository="o/r", ref="refs/heads/dev", sha="a" * 40, event={"ref": "refs/heads/dev"}
        )

    monkeypatch.setattr("firebrick.cli.order.describe_source", describe)

    async def make(jobs=(), **fields):
        wish = Wish(
            repository=tmp_path,
            workflow=None,
            command=None,
            jobs=jobs,
            image=None,
            resources=Resources(),
            secrets={},
            event=EventWish(**fields),
        )
        return await make_order(wish, id="r", artifact_dir=tmp_path)

    return make


async def test_without_an_event_the_workflow_runs_whatever_its_events_are(order):
    made = await order(variables={"A": "b"})
    assert (made.source.event_name, made.source.ref, made.inputs) == ("push", "refs/heads/dev", {})
    assert made.variables == {"A": "b"}


async def test_an_event_that_is_named_must_start_the_workflow(order):
    with pytest.raises(UsageError, match="push does not start .*ci.yml: The branch 'dev' is not of `branches`: main."):
        await order(name="push")
    made = await order(name="workflow_dispatch", inputs={"deep": "true"})
    assert made.inputs == {"deep": True}
    assert made.source.event["inputs"] == {"deep": "true"}


async def test_inputs_alone_are_a_dispatch(order):
    made = await order(inputs={"deep": "false"})
    assert (made.source.event_name, made.inputs) == ("workflow_dispatch", {"deep": False})
    with pytest.raises(UsageError, match="is not a boolean"):
        await order(inputs={"deep": "maybe"})


async def test_a_payload_alone_is_not_asked_whether_it_starts_anything(order, tmp_path):
    payload = tmp_path / "p.json"
    payload.write_text('{"ref": "refs/tags/v1", "after": "%s"}' % ("c" * 40))
    made = await order(payload=payload)
    assert (made.source.ref, made.source.event["after"]) == ("refs/tags/v1", "c" * 40)
    assert made.source.sha == "a" * 40


CALLER = "on: push\njobs: {a: {uses: ./.github/workflows/called.yml}}\n"


@pytest.mark.parametrize(
    ("called", "message"),
    [
        (None, "workflow was not found"),
        ("on: workflow_call\njobs: {b: {runs_on: x, steps: [run: x]}}\n", "Unexpected value 'runs_on'"),
        (
            "{on: {workflow_call: {inputs: {n: {type: string, required: true}}}}, jobs: {b: {runs-on: x, steps: [run: x]}}}",
            "Input n is required",
        ),
    ],
)
async def test_mistakes_of_what_the_workflow_calls_are_told_before_anything_runs(order, tmp_path, called, message):
    folder = tmp_path / ".github" / "workflows"
    caller = tmp_path / "caller.yml"
    caller.write_text(CALLER)
    if called is not None:
        (folder / "called.yml").write_text(called)
    wish = Wish(
        repository=tmp_path,
        workflow=str(caller),
        command=None,
        jobs=(),
        image=None,
        resources=Resources(),
        secrets={},
    )
    with pytest.raises(WorkflowError, match=message):
        await make_order(wish, id="r", artifact_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "on: push\njobs: {a: {runs-on: x, strategy: {matrix: '${{ fromJSON(vars.NONE) }}'}, steps: [run: x]}}\n",
            r"\(Line: 2, Col: \d+\): Error when evaluating 'strategy' for job 'a'\.",
        ),
        ("on: push\nrun-name: ${{ fromJSON('{') }}\njobs: {a: {runs-on: x, steps: [run: x]}}\n", "'run-name' or"),
    ],
)
async def test_what_cannot_be_planned_is_a_mistake_of_the_workflow_for_run_and_for_plan(order, tmp_path, text, message):
    """So both end with the same status, 2."""
    (tmp_path / ".github/workflows/ci.yml").write_text(text)
    with pytest.raises(WorkflowError, match=message) as raised:
        await order()
    assert report(raised.value) == USAGE


async def test_a_matrix_of_outputs_is_left_to_the_run(order, tmp_path):
    text = """
    on: push
    jobs:
      a: {runs-on: x, outputs: {list: x}, steps: [run: x]}
      b: {needs: a, runs-on: x, strategy: {matrix: '${{ fromJSON(needs.a.outputs.list) }}'}, steps: [run: x]}
      c: {runs-on: x, strategy: {matrix: '${{ fromJSON(vars.NONE) }}'}, steps: [run: x]}
    """
    (tmp_path / ".github/workflows/ci.yml").write_text(text)
    assert (await order(jobs=("b",))).jobs == {"b"}
