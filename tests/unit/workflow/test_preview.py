import json

import pytest

from firebrick.workflow.called import Calls, load_with
from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.plan import Caller, expand, is_open, plan
from firebrick.workflow.policy import environment_name, group_request, run_name
from firebrick.workflow.preview import preview
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.reference import OWN
from firebrick.workflow.syntax import Permissions

PLAIN = {"runs-on": "x", "steps": [{"run": "x"}]}
CONTEXTS = {"github": {"ref": "refs/heads/main", "event_name": "push"}, "inputs": {}, "vars": {"PLACE": "here"}}


def read(jobs, **keys):
    return read_workflow(json.dumps({"on": "push", **keys, "jobs": jobs}), "ci.yml")


def shown(jobs, files=None, **keys):
    workflow = read(jobs, **keys)
    found = files or {}
    calls = load_with(
        workflow, lambda target: json.dumps(found[target.path.rpartition("/")[2]]).encode(), local_only=True
    )
    return {job.key: job for job in preview(workflow, calls, CONTEXTS)}


def one(**keys):
    (job,) = shown({"a": {**PLAIN, **keys}}).values()
    return job


def test_what_can_be_evaluated_is():
    job = one(
        **{
            "name": "On ${{ github.event_name }}",
            "if": "github.ref == 'refs/heads/main'",
            "runs-on": ["self-hosted", "${{ vars.PLACE }}"],
            "timeout-minutes": "${{ 1.5 }}",
            "cancel-timeout-minutes": 2,
            "defaults": {"run": {"shell": "bash", "working-directory": "${{ env.WHERE }}"}},
            "continue-on-error": True,
            "concurrency": {"group": "g-${{ github.ref }}", "cancel-in-progress": "${{ true }}"},
            "environment": {"name": "${{ vars.PLACE }}", "url": "https://${{ vars.PLACE }}"},
            "permissions": {"contents": "read", "issues": "none"},
        }
    )
    assert job.to_json() == {
        "key": "a",
        "name": "On push",
        "needs": [],
        "if": "github.ref == 'refs/heads/main'",
        "runs": True,
        "open": False,
        "uses": None,
        "runs-on": ["self-hosted", "here"],
        "matrix": None,
        "strategy": None,
        "timeout-minutes": "1.5",
        "cancel-timeout-minutes": "2",
        "defaults": {"shell": "bash", "working-directory": "${{ env.WHERE }}"},
        "continue-on-error": "true",
        "concurrency": {"group": "g-refs/heads/main", "cancel-in-progress": True, "queue": "single"},
        "environment": {"name": "here", "url": "https://here"},
        "permissions": {"contents": "read"},
    }


def test_what_is_of_a_matrix():
    jobs = shown(
        {"a": {**PLAIN, "runs-on": "${{ matrix.os }}", "strategy": {"max-parallel": 1, "matrix": {"os": ["p", "q"]}}}}
    )
    assert [(job.name, job.runs_on, job.max_parallel) for job in jobs.values()] == [
        ("a (p)", ("p",), 1),
        ("a (q)", ("q",), 1),
    ]


def test_what_depends_on_other_jobs_stays_as_it_is_written():
    jobs = shown(
        {
            "a": PLAIN,
            "b": {
                **PLAIN,
                "needs": "a",
                "runs-on": "${{ needs.a.outputs.x }}",
                "concurrency": "${{ needs.a.outputs.g }}",
                "environment": "${{ needs.a.outputs.e }}",
                "timeout-minutes": "${{ fromJSON(needs.a.outputs.t) }}",
                "strategy": {"matrix": {"v": "${{ fromJSON(needs.a.outputs.v) }}"}},
                "name": "B ${{ matrix.v }}",
            },
        }
    )
    job = jobs["b"]
    assert job.is_open
    assert (job.key, job.name, job.needs) == ("b", "b", ("a",))
    assert job.runs_on == ("${{ needs.a.outputs.x }}",)
    assert job.concurrency["group"] == "${{ needs.a.outputs.g }}"
    assert job.environment["name"] == "${{ needs.a.outputs.e }}"
    assert job.timeout_minutes == "${{ fromJSON(needs.a.outputs.t) }}"


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        (None, None),
        ("always()", True),
        ("failure()", None),
        ("github.ref == 'x'", False),
        ("always() && github.ref == 'x'", False),
        ("needs.a.result == 'success'", None),
        ("success() || failure()", None),
        ("cancelled()", False),
        (False, False),
    ],
)
def test_whether_a_job_runs(condition, runs):
    jobs = {"a": PLAIN, "b": {**PLAIN, "needs": "a", **({} if condition is None else {"if": condition})}}
    assert shown(jobs)["b"].runs is runs
    assert shown(jobs)["a"].runs is True


CALLED = {
    "on": {"workflow_call": {"inputs": {"words": {"type": "string", "default": "[1]"}}}},
    "jobs": {
        "one": {**PLAIN, "strategy": {"matrix": {"w": "${{ fromJSON(inputs.words) }}"}}},
        "two": {**PLAIN, "needs": "one", "if": "github.ref == 'refs/heads/main'"},
        "never": {**PLAIN, "if": "inputs.words == ''"},
    },
}


def test_called_workflows_are_looked_into():
    jobs = shown(
        {
            "a": PLAIN,
            "c": {
                "needs": "a",
                "uses": "./.github/workflows/x.yml",
                "with": {"words": '["p", "q"]'},
                "permissions": "read-all",
            },
        },
        {"x.yml": CALLED},
    )
    assert list(jobs) == ["a", "c.one.0", "c.one.1", "c.never", "c.two"]
    assert jobs["c.one.1"].name == "c / one (q)"
    assert jobs["c.one.0"].needs == ("a",)
    assert jobs["c.two"].needs == ("c.one",)
    assert [jobs[key].runs for key in ("c.one.0", "c.two", "c.never")] == [None, None, False]
    assert jobs["c.one.0"].permissions == {"*": "read"}


def test_calls_that_cannot_be_looked_into_are_one_job():
    jobs = shown(
        {
            "a": PLAIN,
            "later": {"needs": "a", "uses": "./.github/workflows/x.yml", "with": {"words": "${{ needs.a.outputs.w }}"}},
            "never": {"if": False, "uses": "./.github/workflows/x.yml"},
            "other": {"uses": "o/r/.github/workflows/x.yml@v1"},
        },
        {"x.yml": CALLED},
    )
    assert {key: job.uses for key, job in jobs.items() if key != "a"} == {
        "later": "./.github/workflows/x.yml",
        "never": "./.github/workflows/x.yml",
        "other": "o/r/.github/workflows/x.yml@v1",
    }
    assert jobs["never"].runs is False


def test_a_matrix_over_calls_and_calls_in_calls():
    middle = {"on": "workflow_call", "jobs": {"in": {"uses": "./.github/workflows/x.yml"}}}
    jobs = shown(
        {"c": {"strategy": {"matrix": {"v": [1, 2]}}, "uses": "./.github/workflows/m.yml"}},
        {"m.yml": middle, "x.yml": CALLED},
    )
    assert "c.1.in.one.0" in jobs
    assert jobs["c.1.in.one.0"].name == "c (2) / in / one (1)"


def test_more_jobs_than_a_run_may_have():
    files = {
        f"f{i}.yml": {
            "on": "workflow_call",
            "jobs": {f"j{j}": {"uses": f"./.github/workflows/f{i + 1}.yml"} for j in range(6)},
        }
        for i in range(8)
    }
    files["f8.yml"] = {"on": "workflow_call", "jobs": {"a": PLAIN}}
    with pytest.raises(WorkflowError, match="more than 2000 jobs"):
        shown({"a": {"uses": "./.github/workflows/f0.yml"}}, files)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"if": "fromJSON('x')"}, "Error when evaluating 'if' for job 'a'"),
        ({"runs-on": "${{ vars.NONE }}"}, "Error when evaluating 'runs-on' for job 'a'"),
        ({"concurrency": "${{ fromJSON('[]') }}"}, "Error when evaluating 'concurrency' for job 'a'"),
        ({"concurrency": {"group": "g", "cancel-in-progress": "${{ 'yes' }}"}}, "Unexpected value 'yes'"),
        ({"concurrency": {"group": "g", "queue": "max", "cancel-in-progress": "${{ true }}"}}, "cannot be combined"),
        ({"environment": "${{ fromJSON('[]') }}"}, "Error when evaluating 'environment' for job 'a'"),
        ({"strategy": {"fail-fast": "${{ 'no' }}", "matrix": {"v": [1]}}}, "Unexpected value 'no'"),
    ],
)
def test_what_cannot_be_evaluated_is_said_with_its_place(keys, message):
    with pytest.raises(WorkflowError) as raised:
        one(**keys)
    assert message in str(raised.value)
    assert str(raised.value).startswith("ci.yml (Line: 1")


def test_inputs_that_do_not_fit_are_said_at_the_call():
    with pytest.raises(
        WorkflowError, match=r"cannot call the workflow ./.github/workflows/x.yml: .* which is a number"
    ):
        shown(
            {"c": {"uses": "./.github/workflows/x.yml", "with": {"n": "${{ github.ref }}"}}},
            {"x.yml": {"on": {"workflow_call": {"inputs": {"n": {"type": "number"}}}}, "jobs": {"a": PLAIN}}},
        )


def test_a_called_job_may_do_no_more_than_its_caller():
    workflow = read({"a": {**PLAIN, "permissions": {"contents": "write"}}, "b": PLAIN})
    caller = Caller(key="c", name="c", target=OWN, permissions=Permissions(others="read"))
    with pytest.raises(WorkflowError, match="The nested job 'a' is requesting 'contents: write'") as raised:
        plan(workflow, contexts=CONTEXTS, caller=caller)
    assert len(raised.value.errors) == 1
    allowed = Caller(key="c", name="c", target=OWN, permissions=Permissions(others="write"))
    assert [job.key for job in plan(workflow, contexts=CONTEXTS, caller=allowed).jobs] == ["c.a", "c.b"]


def test_open_jobs():
    workflow = read(
        {
            "a": PLAIN,
            "b": {
                **PLAIN,
                "needs": "a",
                "strategy": {"max-parallel": "${{ fromJSON(needs.a.outputs.n) }}", "matrix": {"v": [1, 2]}},
            },
            "c": {**PLAIN, "needs": "a", "name": "C ${{ needs.a.result }}"},
            "d": {**PLAIN, "needs": "a", "if": "needs.a.outputs.n == '1'"},
        }
    )
    assert [job for job in workflow.jobs if is_open(workflow.jobs[job])] == ["b", "c"]
    planned = plan(workflow, contexts=CONTEXTS)
    assert [(job.key, job.is_open) for job in planned.jobs] == [("a", False), ("b", True), ("c", True), ("d", False)]
    scope = Scope({**CONTEXTS, "needs": {"a": {"result": "success", "outputs": {"n": "1"}}}})
    caller = Caller(key="k.1", name="K (x)", target=OWN)
    copies = expand(workflow, workflow.jobs["b"], scope, caller)
    assert [(copy.key, copy.name, copy.max_parallel) for copy in copies] == [
        ("k.1.b.0", "K (x) / b (1)", 1),
        ("k.1.b.1", "K (x) / b (2)", 1),
    ]
    (copy,) = expand(workflow, workflow.jobs["c"], scope)
    assert (copy.key, copy.name, copy.is_open) == ("c", "C success", False)


def test_what_a_workflow_asks_for():
    workflow = read({"a": PLAIN}, **{"run-name": " Deploy ${{ vars.PLACE }} ", "concurrency": "x"})
    assert run_name(workflow, Scope(CONTEXTS)) == "Deploy here"
    assert run_name(read({"a": PLAIN}), Scope(CONTEXTS)) == ""
    asked = group_request(workflow.concurrency, Scope(CONTEXTS))
    assert (asked.group, asked.cancel_in_progress, asked.queue) == ("x", False, "single")
    assert group_request(None, Scope(CONTEXTS)) is None
    with pytest.raises(EvaluationError, match="400 characters"):
        group_request(read({"a": PLAIN}, concurrency="x" * 401).concurrency, Scope(CONTEXTS))


def test_an_address_that_is_known_only_later():
    workflow = read({"a": {**PLAIN, "environment": {"name": "p", "url": "${{ steps.x.outputs.url }}"}}})
    found = environment_name(workflow.jobs["a"].environment, Scope(CONTEXTS))
    assert (found.name, found.url, found.is_known) == ("p", "${{ steps.x.outputs.url }}", False)


def test_a_queue_that_cancels_is_a_mistake_of_the_file():
    with pytest.raises(WorkflowError, match="'queue: max' cannot be combined with 'cancel-in-progress: true'"):
        read({"a": PLAIN}, concurrency={"group": "g", "queue": "max", "cancel-in-progress": True})
    assert (
        read(
            {"a": PLAIN}, concurrency={"group": "g", "queue": "max", "cancel-in-progress": False}
        ).concurrency.queue.raw
        == "max"
    )


def test_nothing_is_called_without_calls():
    assert [job.key for job in preview(read({"a": PLAIN}), Calls(), CONTEXTS)] == ["a"]
