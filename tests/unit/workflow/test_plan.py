import json
from pathlib import Path

import pytest

from firebrick.workflow.expression.expression import EvaluationError
from firebrick.workflow.graph import in_order
from firebrick.workflow.matrix import expand_matrix
from firebrick.workflow.plan import find_order, plan
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow

LANGUAGE = Path(__file__).parents[2] / "scenarios" / "language"
MATRICES = [json.loads(line) for line in (LANGUAGE / "matrix.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", MATRICES, ids=[case["name"] for case in MATRICES])
def test_matrix(case):
    if "error" in case:
        with pytest.raises(EvaluationError) as raised:
            expand_matrix(case["matrix"])
        assert str(raised.value) == case["error"]
    else:
        found = [[each.values, each.suffix] for each in expand_matrix(case["matrix"])]
        assert found == case["jobs"]


def test_matrix_limits():
    assert len(expand_matrix({"a": list(range(16)), "b": list(range(16))})) == 256
    for matrix in (
        {"a": list(range(257))},
        {"a": list(range(256)), "include": [{"a": -1}]},
        {name: list(range(1000)) for name in "abcdef"},
    ):
        with pytest.raises(EvaluationError, match=r"The maximum number of jobs a matrix may have \(256\) was exceeded"):
            expand_matrix(matrix)
    few_of_many = {"a": list(range(30)), "b": list(range(30)), "exclude": [{"a": number} for number in range(1, 30)]}
    assert len(expand_matrix(few_of_many)) == 30
    with pytest.raises(EvaluationError, match="at most 512 entries"):
        expand_matrix({"a": [1], "exclude": [{"a": 2}] * 513})
    with pytest.raises(EvaluationError, match="too many values in `include` or `exclude`"):
        expand_matrix({"a": list(range(4000)), "exclude": [{"a": [0] * 1001}]})
    with pytest.raises(EvaluationError, match="too many values in `include` or `exclude`"):
        expand_matrix({"a": list(range(200)), "include": [{"a": [0] * 30_000}]})


def workflow(jobs: str):
    return read_workflow(f"on: push\njobs:\n{jobs}", "ci.yml")


def job(name: str, extra: str = "") -> str:
    return f"  {name}:\n    runs-on: x\n    steps: [run: x]\n{extra}"


DIAMOND = workflow(
    job("end", "    needs: [left, right]\n")
    + job("left", "    needs: start\n")
    + job("right", "    needs: start\n")
    + job("start")
    + job("alone")
)


def test_order():
    assert [each.id for each in find_order(DIAMOND)] == ["start", "alone", "left", "right", "end"]


def test_only_some_and_what_they_need():
    assert [each.id for each in find_order(DIAMOND, {"left"})] == ["start", "left"]
    assert [each.key for each in plan(DIAMOND, contexts={}, only={"left", "alone"}).jobs] == ["start", "alone", "left"]


def test_unknown_job():
    with pytest.raises(WorkflowError) as raised:
        plan(DIAMOND, contexts={}, only={"ghost"})
    assert (
        str(raised.value)
        == "ci.yml (Line: 1, Col: 1): The workflow has no job 'ghost'. (expected: one of end, left, right, start, alone)"
    )
    assert raised.value.hint


def test_ancestors():
    assert plan(DIAMOND, contexts={}).ancestors("end") == {"left", "right", "start"}
    assert plan(DIAMOND, contexts={}).ancestors("start") == frozenset()


def test_a_cycle_is_no_order():
    with pytest.raises(ValueError, match="cycle"):
        in_order({"a": ["b"], "b": ["a"]})


def test_matrix_jobs():
    strategy = "    strategy:\n      fail-fast: false\n      max-parallel: 2\n      matrix:\n        os: [a, b]\n        v: ${{ fromJSON(github.versions) }}\n"
    found = plan(workflow(job("test", strategy)), contexts={"github": {"versions": "[1.5, 2]"}})
    assert [each.key for each in found.jobs] == ["test.0", "test.1", "test.2", "test.3"]
    assert [each.name for each in found.jobs] == ["test (a, 1.5)", "test (a, 2)", "test (b, 1.5)", "test (b, 2)"]
    assert found.copies("test") == found.jobs
    assert found.jobs[3].contexts == {
        "matrix": {"os": "b", "v": 2},
        "strategy": {"fail-fast": False, "job-index": 3, "job-total": 4, "max-parallel": 2},
    }


def test_one_expression_may_be_the_matrix():
    text = job("t", '    strategy: {matrix: "${{ fromJSON(inputs.m) }}"}\n')
    found = plan(workflow(text), contexts={"inputs": {"m": '{"include":[{"a":1},{"a":2}]}'}})
    assert [each.name for each in found.jobs] == ["t (1)", "t (2)"]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("Test", ["Test (1)", "Test (2)"]),
        ("Test ${{ matrix.v }} of ${{ strategy.job-total }}", ["Test 1 of 2", "Test 2 of 2"]),
        ("${{ github.none }}", ["t", "t"]),
        ("x" * 120, ["x" * 97 + "...", "x" * 97 + "..."]),
    ],
)
def test_names(name, names):
    text = job("t", f"    name: {name}\n    strategy: {{matrix: {{v: [1, 2]}}}}\n")
    assert [each.name for each in plan(workflow(text), contexts={}).jobs] == names


def test_without_matrix():
    (only,) = plan(workflow(job("t", "    strategy: {fail-fast: false}\n")), contexts={}).jobs
    assert (only.key, only.name) == ("t", "t")
    assert only.contexts["matrix"] is None
    assert only.contexts["strategy"]["job-total"] == 1


def test_all_strategies_that_are_wrong_are_told_at_once():
    text = job("a", '    strategy: {matrix: {v: "${{ github.x }}"}}\n') + job(
        "b", "    strategy:\n      matrix: {v: []}\n"
    )
    text += job("c", '    needs: a\n    strategy: {matrix: {v: "${{ fromJSON(needs.a.outputs.v) }}"}}\n')
    with pytest.raises(WorkflowError) as raised:
        plan(workflow(text), contexts={"github": {}})
    assert [str(problem) for problem in raised.value.errors] == [
        "ci.yml (Line: 6, Col: 28): Error when evaluating 'strategy' for job 'a'. Expected a sequence for the matrix vector 'v'",
        "ci.yml (Line: 7, Col: 3): Error when evaluating 'strategy' for job 'b'. Matrix vector 'v' does not contain any values",
    ]


def test_plan_of_two_hundred_jobs_is_quick():
    text = job("t", f"    strategy: {{matrix: {{a: {list(range(20))}, b: {list(range(10))}}}}}\n")
    assert len(plan(workflow(text), contexts={}).jobs) == 200


def test_a_run_has_a_bounded_number_of_jobs():
    vectors = f"    strategy: {{matrix: {{a: {list(range(256))}}}}}\n"
    with pytest.raises(WorkflowError, match="The run would have more than 2000 jobs"):
        plan(workflow("".join(job(f"j{index}", vectors) for index in range(8))), contexts={})


def test_what_a_name_has_no_room_for_is_not_kept_of_each_combination():
    jobs = expand_matrix({"long": ["x" * 1_000_000], "n": list(range(200)), "many": [["y"] * 100_000]})
    assert sum(len(each.suffix) for each in jobs) < 1_000_000
    assert all(each.suffix.startswith("(xxx") for each in jobs)
