import json

import pytest
from typer.testing import CliRunner

from firebrick.cli.errors import UsageError
from firebrick.cli.event import EventWish, find_occasion, read_pairs
from firebrick.cli.plan import make_plan
from firebrick.cli.workflow import app
from firebrick.node.order import Source
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow

CI = """
name: CI
run-name: Run of ${{ github.ref_name }} ${{ inputs.level }}
on:
  push: {branches: [main], paths-ignore: ['**.md']}
  pull_request:
  workflow_dispatch: {inputs: {level: {type: choice, options: [low, high], default: low}}}
  schedule: [{cron: '0 3 * * *'}]
permissions: {contents: read}
concurrency: {group: 'ci-${{ github.ref }}', cancel-in-progress: true}
jobs:
  test:
    strategy: {matrix: {v: [1, 2.5]}}
    runs-on: ubuntu-latest
    timeout-minutes: 5
    steps: [run: x]
  call: {needs: test, uses: ./.github/workflows/called.yml}
  never: {if: github.event_name == 'release', runs-on: x, permissions: write-all, steps: [run: x]}
"""
CALLED = "on: workflow_call\njobs: {one: {runs-on: x, steps: [run: x]}}\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "ci.yml").write_text(CI)
    (folder / "called.yml").write_text(CALLED)
    source = Source(
        path=tmp_path, repository="octo/hello", ref="refs/heads/main", sha="a" * 40, event={"ref": "refs/heads/main"}
    )

    async def describe(directory):
        assert directory == folder
        return source

    # What git says of a directory is tried elsewhere; here is no process.
    monkeypatch.setattr("firebrick.cli.plan.describe_source", describe)
    return folder / "ci.yml"


def run(file, *words):
    return CliRunner().invoke(app, ["plan", str(file), *words])


def test_what_a_push_starts(file):
    result = run(file, "--event", "push")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines == [
        "Run of main on push, refs/heads/main",
        "✓ starts: The event push passes every filter the workflow has for it.",
        "group ci-refs/heads/main, cancels what is in progress",
        "permissions contents: read",
        "job runs on after",
        "● test (1) ubuntu-latest timeout 5 min",
        "● test (2.5) ubuntu-latest timeout 5 min",
        "- never x if github.event_name == 'release' · permissions write-all",
        "○ call / one x test",
    ]


def test_json(file):
    result = run(file, "--json", "--input", "level=high")
    found = json.loads(result.output)
    assert (found["event"], found["starts"], found["run-name"]) == ("workflow_dispatch", True, "Run of main high")
    assert found["inputs"] == {"level": "high"}
    assert found["concurrency"] == {"group": "ci-refs/heads/main", "cancel-in-progress": True, "queue": "single"}
    assert [job["key"] for job in found["jobs"]] == ["test.0", "test.1", "never", "call.one"]
    assert found["jobs"][1]["matrix"] == {"v": 2.5}
    assert '"matrix": {"v": 1}' in result.output
    assert found["jobs"][2]["runs"] is False
    assert found["jobs"][3]["needs"] == ["test"]


def test_why_nothing_starts(file, tmp_path):
    result = run(file, "--event", "push", "--changed", "a.md", "--changed", "docs/b.md")
    assert result.exit_code == 1
    assert "✗ does not start: Every one of 2 changed files is of `paths-ignore`: **.md." in result.output
    assert "test" not in result.output
    payload = tmp_path / "push.json"
    payload.write_text(json.dumps({"ref": "refs/heads/dev", "commits": [{"added": ["x"]}]}))
    result = run(file, "--event", "push", "--payload", str(payload), "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert (found["starts"], found["jobs"], found["ref"]) == (False, [], "refs/heads/dev")
    assert found["reason"] == "The branch 'dev' is not of `branches`: main."


@pytest.mark.parametrize("event", ["pull_request", "schedule", "workflow_dispatch"])
def test_an_event_without_a_payload_is_made_up(file, event):
    assert run(file, "--event", event).exit_code == 0


def test_mistakes_of_the_file_and_of_what_it_calls(file):
    (file.parent / "called.yml").write_text("on: push\njobs: {one: {runs-on: x, steps: [run: x]}}\n")
    result = run(file, "--json")
    assert result.exit_code == 2
    (problem,) = json.loads(result.output)["errors"]
    assert "missing a `on.workflow_call` trigger" in problem["message"]
    with pytest.raises(WorkflowError):
        make_plan(file, EventWish())
    file.write_text("on: push\njobs: {}\n")
    assert isinstance(run(file).exception, WorkflowError)


def test_a_condition_that_cannot_be_evaluated(file):
    file.write_text(CI.replace("ci-${{ github.ref }}", "${{ fromJSON(''x'') }}"))
    with pytest.raises(WorkflowError, match="Error when evaluating 'run-name' or 'concurrency'"):
        make_plan(file, EventWish(name="push"))


def test_a_called_file_that_is_a_link_is_not_followed(file):
    (file.parent / "called.yml").unlink()
    (file.parent / "called.yml").symlink_to(file)
    with pytest.raises(UsageError, match="symbolic link"):
        make_plan(file, EventWish())


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*\.yml: No such file"):
        make_plan(tmp_path / "x.yml", EventWish())


def workflow(on):
    return read_workflow(f"on: {on}\njobs: {{a: {{runs-on: x, steps: [run: x]}}}}\n", "ci.yml")


SOURCE = Source(path=None, repository="o/r", ref="refs/heads/dev", sha="b" * 40, event={"ref": "refs/heads/dev"})
INPUTS = "{workflow_dispatch: {inputs: {n: {type: number, required: true}}}}"


def test_inputs_of_a_dispatch():
    found = find_occasion(EventWish(inputs={"n": "4"}), workflow(INPUTS), SOURCE)
    assert (found.event.name, found.inputs) == ("workflow_dispatch", {"n": 4})
    assert found.source.event["inputs"] == {"n": "4"}
    assert found.source.event_name == "workflow_dispatch"
    with pytest.raises(UsageError, match="Required input 'n' not provided") as raised:
        find_occasion(EventWish(name="workflow_dispatch"), workflow(INPUTS), SOURCE)
    assert raised.value.hint == "The workflow takes n (number, required)."


def test_a_workflow_that_is_only_called_takes_its_inputs():
    called = workflow("{workflow_call: {inputs: {deep: {type: boolean}}}}")
    assert find_occasion(EventWish(inputs={"deep": "true"}), called, SOURCE).inputs == {"deep": True}


def test_inputs_for_what_takes_none():
    with pytest.raises(UsageError, match="ci.yml takes no inputs from push"):
        find_occasion(EventWish(name="push", inputs={"n": "1"}), workflow("push"), SOURCE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no JSON object"),
        ("{", "no JSON:"),
        ("[" * 100_000, "no JSON: it is nested too deep"),
        (b"\xff{}", "no JSON: it is not text in UTF-8"),
        (None, "cannot read"),
    ],
)
def test_payloads_that_cannot_be_read(tmp_path, content, message):
    file = tmp_path / "p.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        find_occasion(EventWish(payload=file), workflow("push"), SOURCE)


def test_inputs_of_the_payload_and_over_them_those_of_the_command_line(tmp_path):
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"inputs": {"n": 1}, "ref": "refs/heads/x"}))
    wish = EventWish(name="workflow_dispatch", payload=file)
    assert find_occasion(wish, workflow(INPUTS), SOURCE).inputs == {"n": 1}
    found = find_occasion(
        EventWish(name="workflow_dispatch", payload=file, inputs={"n": "2"}), workflow(INPUTS), SOURCE
    )
    assert (found.inputs, found.source.ref) == ({"n": 2}, "refs/heads/x")


def test_pairs():
    assert read_pairs(["A=b=c", "X="], "--var") == {"A": "b=c", "X": ""}
    for word in ("A", "=x"):
        with pytest.raises(UsageError, match="is no NAME=VALUE"):
            read_pairs([word], "--var")


def test_sources_without_a_branch_say_how_to_name_one(file, monkeypatch):
    source = Source(path=file.parent, repository="octo/hello", ref="", sha="")

    async def describe(directory):
        return source

    monkeypatch.setattr("firebrick.cli.plan.describe_source", describe)
    result = run(file, "--event", "push")
    assert result.exit_code == 1
    assert "The event names neither a branch nor a tag" in result.output
    assert "--ref" in result.output
    assert "--ref" not in run(file, "--event", "release").output, "no branch makes it listen to that"


def test_another_ref_than_what_is_checked_out(file, tmp_path):
    assert run(file, "--event", "push", "--ref", "dev").exit_code == 1
    assert run(file, "--event", "push", "--ref", "refs/heads/main").exit_code == 0
    found = json.loads(run(file, "--event", "push", "--ref", "refs/tags/v1", "--json").output)
    assert found["reason"] == "The workflow has filters for branches only, and 'v1' is a tag."
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(UsageError, match="--ref and --payload are both given"):
        find_occasion(EventWish(ref="x", payload=tmp_path / "p.json"), workflow("push"), SOURCE)
