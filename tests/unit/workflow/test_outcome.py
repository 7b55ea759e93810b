"""What follows from how jobs ended: the rules people trip over."""

import pytest

from firebrick.workflow.command.masker import Masker
from firebrick.workflow.expression.expression import ANYTHING, EvaluationError, Scope
from firebrick.workflow.outcome import (
    JobOutcome,
    StepOutcome,
    flag,
    job_outputs,
    job_scope,
    merge,
    run_result,
    runs_on_labels,
    should_run,
    step_scope,
    steps_context,
    timeout_s,
)
from firebrick.workflow.plan import plan
from firebrick.workflow.problem import Position
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.template import parse_template


def chain(condition_b: str = "", condition_c: str = ""):
    """a <- b <- c, with conditions."""
    text = "on: push\njobs:\n  a: {runs-on: x, steps: [run: x]}\n"
    for name, need, condition in (("b", "a", condition_b), ("c", "b", condition_c)):
        text += f"  {name}:\n    needs: {need}\n    runs-on: x\n    steps: [run: x]\n"
        text += f"    if: {condition}\n" if condition else ""
    return plan(read_workflow(text, "ci.yml"), contexts={})


def runs(found, job_id: str, *, cancelled: bool = False, **results: str) -> bool:
    outcomes = {name: JobOutcome(result, {"o": name}) for name, result in results.items()}
    return should_run(found, found.copies(job_id)[0], outcomes, {"github": {"ref": "main"}}, cancelled=cancelled)


@pytest.mark.parametrize(
    ("condition", "a", "b", "expected"),
    [
        ("", "success", "success", True),
        ("", "success", "failure", False),
        ("", "success", "skipped", False),
        ("", "success", "cancelled", False),
        # b ran although a was skipped or failed, and c is still skipped: all ancestors count.
        ("", "skipped", "success", False),
        ("", "failure", "success", False),
        ("always()", "failure", "skipped", True),
        ("failure()", "failure", "skipped", True),
        ("failure()", "failure", "success", True),
        ("failure()", "success", "skipped", False),
        ("success() || failure()", "success", "skipped", False),
        ("'!cancelled()'", "skipped", "skipped", True),
        ("needs.b.result == 'success'", "success", "success", True),
        ("needs.b.result == 'success'", "skipped", "success", False),
        ("always() && needs.b.result == 'success'", "skipped", "success", True),
        ("needs.a.result == ''", "success", "success", True),
        ("needs.b.outputs.o == 'b'", "success", "success", True),
        ("github.ref == 'MAIN'", "success", "success", True),
        ("success('b')", "failure", "success", True),
        ("success('B')", "failure", "failure", False),
        ("failure('b')", "failure", "success", False),
    ],
)
def test_conditions_of_jobs(condition, a, b, expected):
    assert runs(chain(condition_c=condition), "c", a=a, b=b) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [("", False), ("always()", True), ("cancelled()", True), ("failure()", False), ("true", False)],
)
def test_when_the_run_is_cancelled(condition, expected):
    assert runs(chain(condition_b=condition), "b", a="success", cancelled=True) is expected


def test_needs_holds_direct_needs_only():
    found = chain()
    scope = job_scope(
        found, found.copies("c")[0], {"a": JobOutcome("success"), "b": JobOutcome("success", {"x": "1"})}, {}
    )
    assert scope.contexts["needs"] == {"b": {"result": "success", "outputs": {"x": "1"}}}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (["success", "success"], "success"),
        (["success", "skipped"], "success"),
        (["skipped", "skipped"], "skipped"),
        (["success", "cancelled"], "cancelled"),
        (["cancelled", "failure"], "failure"),
        ([], "skipped"),
    ],
)
def test_results_of_many(results, expected):
    assert run_result(JobOutcome(result) for result in results) == expected


def test_outputs_of_a_matrix_the_last_one_that_says_something():
    copies = [
        JobOutcome("success", {"a": "1", "b": "x"}),
        JobOutcome("success", {"a": "2", "b": ""}),
        JobOutcome("skipped"),
    ]
    assert merge(copies).outputs == {"a": "2", "b": "x"}


def job_of(text: str):
    return read_workflow(f"on: push\njobs:\n  a:\n    steps: [run: x]\n{text}", "ci.yml").jobs["a"]


def test_labels():
    scope = Scope({"matrix": {"os": "debian", "many": ["a", "b"], "group": {"labels": ["c"]}}})
    assert runs_on_labels(job_of("    runs-on: ${{ matrix.os }}\n"), scope) == ("debian",)
    assert runs_on_labels(job_of("    runs-on: ['${{ matrix.os }}', x]\n"), scope) == ("debian", "x")
    assert runs_on_labels(job_of("    runs-on: ${{ matrix.many }}\n"), scope) == ("a", "b")
    assert runs_on_labels(job_of("    runs-on: ${{ matrix.group }}\n"), scope) == ("c",)
    with pytest.raises(EvaluationError, match="The job 'a' has no label in `runs-on`"):
        runs_on_labels(job_of("    runs-on: ${{ matrix.none }}\n"), scope)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("success", (True, True, False, False)),
        ("failure", (True, False, True, False)),
        ("cancelled", (True, False, False, True)),
    ],
)
def test_status_functions_of_steps(status, expected):
    scope = step_scope(Scope(), status=status, contexts={"env": {"A": "1"}})
    names = ("always", "success", "failure", "cancelled")
    assert tuple(scope.functions[name]([]) for name in names) == expected
    assert scope.contexts["env"] == {"A": "1"}


def test_steps_without_an_id_are_not_seen():
    found = steps_context({"a": StepOutcome("failure", "success", {"x": "1"}), "": StepOutcome("success", "success")})
    assert found == {"a": {"outputs": {"x": "1"}, "outcome": "failure", "conclusion": "success"}}


def test_outputs_of_a_job():
    job = job_of(
        "    runs-on: x\n    outputs: {a: '${{ steps.s.outputs.v }}', b: '${{ steps.none }}', c: my-secret-value}\n"
    )
    outputs, warnings = job_outputs(job, Scope({"steps": {"s": {"outputs": {"v": "1"}}}}), Masker(["secret"]))
    assert outputs == {"a": "1"}
    assert warnings == ("Skip output 'c' since it may contain secret.",)


def test_timeouts():
    scope = Scope({"matrix": {"t": 0.5, "s": "2", "zero": 0, "text": "soon"}})
    assert timeout_s(None, scope, 60.0) == 60.0
    assert timeout_s(
        job_of("    runs-on: x\n    timeout-minutes: 0.02\n").timeout_minutes, scope, 60.0
    ) == pytest.approx(1.2)
    assert (
        timeout_s(job_of("    runs-on: x\n    timeout-minutes: ${{ matrix.t }}\n").timeout_minutes, scope, 1.0) == 30.0
    )
    assert (
        timeout_s(job_of("    runs-on: x\n    timeout-minutes: ${{ matrix.s }}\n").timeout_minutes, scope, 1.0) == 120.0
    )
    for wrong in ("zero", "text", "none"):
        template = job_of(f"    runs-on: x\n    timeout-minutes: ${{{{ matrix.{wrong} }}}}\n").timeout_minutes
        with pytest.raises(EvaluationError, match="must be a number above 0"):
            timeout_s(template, scope, 1.0)


def test_flags():
    scope = Scope({"matrix": {"t": True, "s": "true"}})
    assert flag(None, scope) is False
    assert flag(job_of("    runs-on: x\n    continue-on-error: ${{ matrix.t }}\n").continue_on_error, scope) is True
    with pytest.raises(EvaluationError, match="Unexpected value 'true'"):
        flag(job_of("    runs-on: x\n    continue-on-error: ${{ matrix.s }}\n").continue_on_error, scope)


def test_the_outputs_of_a_job_are_bounded():
    text = "on: push\njobs: {a: {runs-on: x, outputs: {o: '${{ steps.s.outputs.o }}', p: '${{ steps.s.outputs.o }}'}, steps: [run: x]}}\n"
    job = read_workflow(text, "ci.yml").jobs["a"]

    def outputs(size: int):
        steps = steps_context({"s": StepOutcome("success", "success", {"o": "x" * size})})
        return job_outputs(job, Scope({"steps": steps}), Masker())[0]

    assert len(outputs(500_000)) == 2
    with pytest.raises(EvaluationError, match="1024 KiB together"):
        outputs(600_000)


@pytest.mark.parametrize("minutes", ["1e308", "Infinity", "1e300"])
def test_a_timeout_is_a_number_every_clock_can_wait_for(minutes: str):
    template = parse_template(minutes, Position(), ANYTHING)
    assert timeout_s(template, Scope(), 0) == 366 * 24 * 3600
