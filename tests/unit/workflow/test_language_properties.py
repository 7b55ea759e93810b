"""What holds for every workflow and action file that could be written: it is read, or its mistakes are told at places that are there; in time that grows no
faster than the file does."""

import contextlib
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firebrick.workflow.action_file import ActionFile, read_action_file
from firebrick.workflow.diagram import draw
from firebrick.workflow.expression.answer import answer
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.syntax import Workflow

# The same examples every time, however busy the machine is.
QUIET = settings(deadline=None, derandomize=True, max_examples=150)

scalars = st.sampled_from(
    [
        None, True, False, 0, 1.5, -1, "", "a", "a", "b", "x", "push", "inherit", "read-all", "bash", "${{ github.ref }}", "${{ secrets.A }}", "${{ matrix.a }}",
        "${{ fromJSON('[1]') }}", "${{", "}}", "${{ }}", "always()", "a ${{ 1 }} b", "./a", "o/r@v1", "docker://x", "node20", "composite", "docker", "0 0 * * *",
        "\u2028", "'", "x" * 200,
    ]
)  # fmt: skip
keys = st.sampled_from(
    [
        "on", "jobs", "name", "run-name", "env", "permissions", "concurrency", "defaults", "run", "shell", "working-directory", "a", "b", "A", "needs", "if", "runs-on",
        "steps", "uses", "with", "secrets", "strategy", "matrix", "include", "exclude", "fail-fast", "max-parallel", "container", "services", "image", "ports", "volumes",
        "options", "credentials", "username", "password", "environment", "url", "deployment", "outputs", "value", "id", "timeout-minutes", "continue-on-error", "group",
        "cancel-in-progress", "queue", "push", "pull_request", "workflow_call", "workflow_dispatch", "inputs", "type", "default", "required", "branches", "types", "schedule",
        "cron", "snapshot", "image-name", "contents", "id-token", "runs", "using", "main", "post", "post-if", "pre-if", "args", "entrypoint", "description", "parallel", "wait",
        "background", "wait-all", "cancel", "<<", "1", "__a", "${{ x }}",
    ]
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=25,
)
jobs = st.dictionaries(keys, st.dictionaries(keys, trees, max_size=6) | trees, max_size=4)
workflows = st.fixed_dictionaries(
    {"on": trees, "jobs": jobs},
    optional={"env": trees, "defaults": trees, "permissions": trees, "concurrency": trees, "name": scalars},
)
steps = st.lists(st.dictionaries(keys, trees, max_size=5), max_size=4)
actions = st.fixed_dictionaries(
    {
        "runs": st.fixed_dictionaries(
            {"using": scalars},
            optional={
                "steps": steps,
                "main": scalars,
                "image": scalars,
                "args": trees,
                "env": trees,
                "post-if": scalars,
            },
        )
    },
    optional={"inputs": trees, "outputs": trees, "name": trees, "description": trees},
)


def check_places(text: str, error: WorkflowError) -> None:
    lines = text.split("\n")
    assert error.errors
    for problem in error.errors:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        str(problem).encode()
        problem.excerpt()
    assert [problem.position for problem in error.errors] == sorted(problem.position for problem in error.errors)


def check(read, text: str, kind: type) -> object:
    try:
        found = read(text, "f.yml")
    except WorkflowError as error:
        check_places(text, error)
        return None
    assert isinstance(found, kind)
    return found


@given(workflows | trees)
@example({"on": "push", "jobs": {"a": {"needs": "a", "runs-on": "x", "steps": [{"run": "x"}]}}})
@QUIET
def test_any_workflow_is_read_or_its_mistakes_are_told(tree):
    found = check(read_workflow, json.dumps(tree, ensure_ascii=False, indent=1), Workflow)
    assert found is None or draw(found).endswith("</svg>\n")


@given(actions | trees)
@QUIET
def test_any_action_is_read_or_its_mistakes_are_told(tree):
    check(read_action_file, json.dumps(tree, ensure_ascii=False, indent=1), ActionFile)


@given(st.binary(max_size=60) | st.text(max_size=60))
@QUIET
def test_any_bytes_are_read_or_refused(content):
    for read in (read_workflow, read_action_file):
        with contextlib.suppress(WorkflowError):
            read(content, "f.yml")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
pieces = st.sampled_from(
    [*"()[].,*!'", "==", "!=", "<", ">=", "&&", "||", " ", "a", "a.b", "A['c']", "'x'", "1", "-0x1", "null", "NaN", "format(", "'{0}'", "join(", "case(", "toJSON(", "fromJSON(", "contains("]
)  # fmt: skip


@given(st.lists(pieces, max_size=16).map("".join), json_values)
@QUIET
def test_any_expression_has_an_answer_that_is_json(text, value):
    found = json.loads(json.dumps(answer(text, {"a": value}), allow_nan=False))
    assert found.keys() in ({"kind", "value"}, {"error"})


def seconds(run, argument) -> float:
    best = 1e9
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(WorkflowError):
            run(argument)
        best = min(best, time.process_time() - started)
    return best


def read(text: str) -> Workflow:
    return read_workflow(text, "f.yml")


def action(text: str) -> ActionFile:
    return read_action_file(text, "action.yml")


def ask(text: str) -> object:
    return answer(text, {"a": {"b": 1}})


def workflow_of(jobs: str) -> str:
    return f"on: push\njobs:\n{jobs}"


def job(name: str, needs: str = "") -> str:
    return f"  {name}: {{runs-on: x, {needs}steps: [run: x]}}\n"


STEP = "  - {run: x, shell: bash}\n"
GROWING = {
    "jobs": (read, lambda n: workflow_of("".join(job(f"j{i}") for i in range(n))), 40),
    "a chain of needs": (read, lambda n: workflow_of("".join(job(f"j{i}", f"needs: j{i - 1}, " if i else "") for i in range(n))), 40),
    "a cycle of needs": (read, lambda n: workflow_of(job("free") + "".join(job(f"j{i}", f"needs: j{i - 1 if i else n - 1}, ") for i in range(n))), 40),
    "needs that are no job": (read, lambda n: workflow_of(job("a", f"needs: [{', '.join(f'n{i}' for i in range(n))}], ")), 300),
    "jobs that need what is no job": (read, lambda n: workflow_of("".join(job(f"j{i}", "needs: none, ") for i in range(n))), 60),
    "drawn": (lambda text: draw(read(text)), lambda n: workflow_of(job("a") + "".join(job(f"j{i}", "needs: a, ") for i in range(n))), 40),
    "drawn, a chain": (lambda text: draw(read(text)), lambda n: workflow_of("".join(job(f"j{i}", f"needs: j{i - 1}, " if i else "") for i in range(n))), 40),
    "steps of an action": (action, lambda n: "runs:\n  using: composite\n  steps:\n" + STEP * n, 60),
    "inputs of an action": (action, lambda n: "inputs:\n" + "".join(f"  i{i}: {{default: x}}\n" for i in range(n)) + "runs: {using: node20, main: x}\n", 100),
    "wrong keys": (read, lambda n: "on: push\n" + "".join(f"key{i}: 1\n" for i in range(n)) + "jobs: {}\n", 300),
    "expressions in a text": (read, lambda n: f"on: push\nrun-name: {'${{ github.ref }}' * n}\njobs: {{}}\n", 200),
    "aliases": (read, lambda n: "on: push\nenv: &e {A: b}\njobs:\n" + "".join(f"  j{i}: {{runs-on: x, env: *e, steps: [run: x]}}\n" for i in range(n)), 40),
    "a long string": (ask, lambda n: "'" + "x" * n + "'", 2000),
    "a long string of quotes": (ask, lambda n: "'" + "''" * n, 1000),
    "a string that does not end": (ask, lambda n: "'" + "x" * n, 2000),
    "strings that do not end": (ask, lambda n: "'x" * n, 1000),
    "and": (ask, lambda n: "&&".join(["1"] * n), 500),
    "comparisons in brackets": (ask, lambda n: "||".join(["(1==2)"] * n), 250),
    "commas": (ask, lambda n: "format('x'" + "," * n + ")", 2000),
    "words": (ask, lambda n: "a" * n, 4000),
    "wrong words": (ask, lambda n: "$" * n, 4000),
    "dots": (ask, lambda n: "." * n, 4000),
    "minus": (ask, lambda n: "-" * n, 4000),
    "spaces": (ask, lambda n: " " * n, 4000),
    "braces of format": (ask, lambda n: "format('" + "{{" * n + "')", 1500),
    "places of format": (ask, lambda n: "format('" + "{0}" * n + "', 1)", 1000),
    "specifiers of format": (ask, lambda n: "format('{0:" + "{0:" * n + "}', 1)", 1500),
    "digits of format": (ask, lambda n: "format('{" + "0" * n + "}', 1)", 4000),
    "an array of JSON": (ask, lambda n: "fromJSON('[" + "1," * n + "1]')", 2000),
    "a number of JSON": (ask, lambda n: "fromJSON('" + "1" * n + "')", 4000),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_time_grows_no_faster_than_what_is_read(name):
    run, make, size = GROWING[name]
    small, large = seconds(run, make(size)), seconds(run, make(size * 5))
    # Five times the text: quadratic would be 25 times. Below some milliseconds the clock says nothing.
    assert large < 15 * max(small, 0.003)
