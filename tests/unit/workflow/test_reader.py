"""Workflow files into records, and every mistake at its place."""

from pathlib import Path

import pytest

from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.problem import Position, Problem, WorkflowError
from firebrick.workflow.reader import read_workflow

LANGUAGE = Path(__file__).parents[2] / "scenarios" / "language"


def files(kind: str) -> list[Path]:
    found = sorted((LANGUAGE / kind).glob("*.yml"))
    assert found
    return found


def errors_of(text: str | bytes) -> list[str]:
    with pytest.raises(WorkflowError) as raised:
        read_workflow(text, "ci.yml")
    return [str(problem) for problem in raised.value.errors]


@pytest.mark.parametrize("path", files("invalid"), ids=lambda path: path.stem)
def test_mistakes(path):
    with pytest.raises(WorkflowError) as raised:
        read_workflow(path.read_bytes(), path.name)
    assert [str(problem) for problem in raised.value.errors] == path.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize("path", files("valid"), ids=lambda path: path.stem)
def test_warnings(path):
    workflow = read_workflow(path.read_bytes(), path.name)
    assert [str(problem) for problem in workflow.warnings] == path.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize("path", files("invalid"), ids=lambda path: path.stem)
def test_every_mistake_points_into_its_file(path):
    with pytest.raises(WorkflowError) as raised:
        read_workflow(path.read_bytes(), path.name)
    lines = path.read_text().split("\n")
    for problem in raised.value.errors:
        assert problem.line <= len(lines)
        assert problem.column <= len(lines[problem.line - 1]) + 1


def test_full_workflow():
    workflow = read_workflow((LANGUAGE / "valid" / "full.yml").read_text(), "full.yml")
    assert workflow.name == "Everything"
    assert list(workflow.on) == ["push", "pull_request", "workflow_dispatch", "workflow_call", "schedule", "release"]
    assert workflow.on["push"] == {
        "branches": ("main", "release/**"),
        "tags-ignore": "v0.*",
        "paths": ("src/**", "!docs"),
    }
    assert workflow.on["workflow_dispatch"]["inputs"]["count"] == {"type": "number", "default": 3.0}
    assert workflow.env.texts(Scope({"inputs": {"level": "high"}})) == {
        "LEVEL": "high",
        "FLAG": "true",
        "VERSION": "3.1",
        "EMPTY": "",
    }
    build = workflow.jobs["build"]
    assert build.env.texts(Scope()) == {"A": "b"}
    assert build.strategy.max_parallel.value(Scope()) == 2
    assert build.position == Position(45, 3)
    checkout, tag, upload = build.steps
    assert (checkout.uses, checkout.with_.texts(Scope())) == ("actions/checkout@v4", {"fetch-depth": "0"})
    assert tag.run.text(Scope({"github": {"sha": "abc"}})) == 'echo "tag=abc" >> "$GITHUB_OUTPUT"\n'
    assert tag.timeout_minutes.value(Scope()) == 0.5
    assert tag.display_name == "Find the tag"
    assert upload.with_.texts(Scope())["path"] == "dist/*\n!dist/*.tmp\n"
    assert workflow.jobs["group"].needs == ("build",)
    assert [label.raw for label in workflow.jobs["group"].runs_on] == ["a", "b"]
    assert [label.raw for label in workflow.jobs["test"].runs_on] == ["self-hosted", "linux"]


def test_scalars_are_those_of_yaml_1_2():
    workflow = read_workflow((LANGUAGE / "valid" / "yes-is-text.yml").read_bytes(), "f.yml")
    assert workflow.name == "yes"
    assert workflow.env.texts(Scope()) == {
        "A": "yes",
        "B": "on",
        "C": "12",
        "D": "1_000",
        "E": "12:30",
        "F": "2024-01-01",
        "G": "",
        "H": "true",
        "I": "0.5",
    }


def test_text_around_a_condition_makes_it_true():
    workflow = read_workflow((LANGUAGE / "valid" / "text-around-condition.yml").read_bytes(), "f.yml")
    scope = Scope({"github": {"ref": "y"}}, {"success": lambda _: True})
    assert [step.if_.holds(scope) for step in workflow.jobs["a"].steps] == [True, True, False]


@pytest.mark.parametrize(
    ("condition", "success", "holds"),
    [
        ("true", True, True),
        ("true", False, False),
        ("${{ true }}", False, False),
        ("always()", False, True),
        ("${{ always() && false }}", True, False),
        ("failure() || true", False, True),
        ("false || success()", False, False),
        ("!cancelled()", False, True),
        ("'text'", True, True),
        ("''", True, False),
        ("contains('always()', 'x') || true", False, False),
    ],
)
def test_a_condition_without_status_function_holds_only_after_success(condition, success, holds):
    text = f'on: push\njobs: {{a: {{runs-on: x, steps: [{{run: x, if: "{condition}"}}]}}}}\n'
    step = read_workflow(text, "f.yml").jobs["a"].steps[0]
    functions = {"success": success, "failure": not success, "always": True, "cancelled": False}
    scope = Scope({}, {name: lambda _, value=value: value for name, value in functions.items()})
    assert step.if_.holds(scope) is holds


def test_anchors_give_the_same_steps():
    workflow = read_workflow((LANGUAGE / "valid" / "anchors.yml").read_bytes(), "f.yml")
    assert workflow.jobs["a"].steps == workflow.jobs["b"].steps
    assert workflow.jobs["a"].env.texts(Scope()) == {"A": "1"}


def test_display_names():
    text = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: |\n\n          make all\n          make check\n      - uses: actions/checkout@v4\n      - run: ''\n"
    steps = read_workflow(text, "f.yml").jobs["a"].steps
    assert [step.display_name for step in steps] == ["Run make all", "Run actions/checkout@v4", "Run"]


def test_a_problem_shows_its_line_with_a_caret():
    problem = Problem("ci.yml", Position(12, 5), "Unexpected value 'x'", "one of a, b", "\t  \x1b[31mx: y")
    assert str(problem) == "ci.yml (Line: 12, Col: 5): Unexpected value 'x' (expected: one of a, b)"
    assert problem.excerpt() == "   12 | \t  \N{REPLACEMENT CHARACTER}[31mx: y\n      | \t   ^"
    assert Problem("ci.yml", Position(1, 1), "gone").excerpt() == ""


def test_a_caret_far_to_the_right_is_still_shown():
    excerpt = Problem("ci.yml", Position(1, 5001), "m", "", "x" * 6000).excerpt().split("\n")
    assert len(excerpt[0]) < 140
    assert excerpt[1].endswith("^")
    assert len(excerpt[1]) < 140


def test_limits():
    assert errors_of("x" * (1 << 21)) == [
        "ci.yml (Line: 1, Col: 1): Maximum object size exceeded (expected: at most 1048576 bytes)"
    ]
    assert errors_of("[" * 1000) == [
        "ci.yml (Line: 1, Col: 51): Maximum object depth exceeded (expected: at most 50 levels)"
    ]
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for previous, name in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{previous}'] * 10)}]\n"
    assert errors_of(bomb) == [
        "ci.yml (Line: 5, Col: 20): Maximum object size exceeded (expected: at most 50000 values, aliases expanded)"
    ]


def test_aliases_count_for_depth():
    nested = "a: &a [[[[[[[[[[x]]]]]]]]]]\n"
    for previous, name in zip("abcde", "bcdef", strict=True):
        nested += f"{name}: &{name} [[[[[[[[[[*{previous}]]]]]]]]]]\n"
    assert "Maximum object depth exceeded" in errors_of(nested)[0]


def test_bytes_that_are_no_utf_8():
    assert errors_of(b"on: push\nname: \xff\n") == [
        "ci.yml (Line: 2, Col: 7): The file is not UTF-8 (expected: text encoded in UTF-8)"
    ]


def test_a_byte_order_mark_is_nothing():
    small = (LANGUAGE / "valid" / "small.yml").read_bytes()
    assert read_workflow(b"\xef\xbb\xbf" + small, "f.yml") == read_workflow(small, "f.yml")


def test_name_is_the_path_where_there_is_none():
    assert (
        read_workflow((LANGUAGE / "valid" / "small.yml").read_bytes(), ".github/workflows/ci.yml").name
        == ".github/workflows/ci.yml"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'on: push\n"\\ud800key": 1\njobs: {}\n', "(Line: 2, Col: 1)"),
        (b'on: push\njobs:\n  a:\n    needs: "\\udfff"\n', "(Line: 4, Col: 12)"),
        (b'name: "\\ude00\\ud83d"\n', "(Line: 1, Col: 7)"),
    ],
)
def test_half_a_surrogate_pair_is_a_mistake_at_its_place(text, place):
    [error] = errors_of(text)
    assert place in error
    assert "Half a surrogate pair" in error
    error.encode()


def test_both_halves_are_a_character():
    text = 'name: "\\ud83d\\ude00"\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n'
    assert read_workflow(text, "ci.yml").name == "\N{GRINNING FACE}"


def test_text_that_cannot_be_encoded_is_a_mistake():
    [error] = errors_of("name: x\nrun-name: \ud800\n")
    assert "(Line: 2, Col: 11)" in error
    error.encode()
