import json

import pytest
from typer.testing import CliRunner

from firebrick.cli.workflow import app

GOOD = "on: push\npermissions: read-all\njobs: {a: {runs-on: x, steps: [run: x]}}\n"
BAD = "on: push\njobs:\n  a:\n    runs_on: x\n    steps: [run: \x22\x22]\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.yml").write_text(GOOD)
    (tmp_path / "bad.yml").write_text(BAD)
    return tmp_path


def check(*arguments: str):
    return CliRunner().invoke(app, ["check", *arguments])


def test_good(files):
    result = check(str(files / "good.yml"))
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"warning: {files}/good.yml (Line: 2, Col: 1): 'permissions' has no effect yet: the token of a job is the secret GITHUB_TOKEN, and may do what that may",
        f"{files}/good.yml: ok",
    ]


def test_bad(files):
    result = check(str(files / "good.yml"), str(files / "bad.yml"))
    assert result.exit_code == 1
    assert f"{files}/bad.yml (Line: 4, Col: 5): Unexpected value 'runs_on' (expected: 'runs-on'?)" in result.output
    assert f"{files}/bad.yml (Line: 4, Col: 5): Required property is missing: runs-on" in result.output


def test_json(files):
    result = check("--json", str(files / "good.yml"), str(files / "bad.yml"))
    good, bad = (json.loads(line) for line in result.output.splitlines())
    assert (good["ok"], good["errors"], len(good["warnings"])) == (True, [], 1)
    assert bad["ok"] is False
    assert bad["errors"][0] == {
        "file": f"{files}/bad.yml",
        "line": 4,
        "column": 5,
        "message": "Unexpected value 'runs_on'",
        "expected": "'runs-on'?",
    }
    assert result.exit_code == 1


def test_a_file_that_is_not_there(files):
    result = check(str(files / "none.yml"), str(files / "good.yml"))
    assert result.exit_code == 2
    assert "good.yml: ok" in result.output
    assert (
        f"error: cannot read {files}/none.yml: No such file or directory\nhint:  Name workflow files" in result.output
    )


def test_a_file_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text('on: push\n"\\e[31mred": x\njobs: {}\n')
    result = check(str(path))
    assert "\x1b" not in result.output
    assert result.exit_code == 1


def test_action_files_are_known_by_their_name(tmp_path):
    action = tmp_path / "action.yaml"
    action.write_text("runs: {using: composite, steps: [{run: x}]}\n")
    result = check(str(action))
    assert result.exit_code == 1
    assert result.output == f"{action} (Line: 1, Col: 34): Required property is missing: shell\n"
    action.write_text("runs: {using: composite, steps: [{run: x, shell: sh}]}\n")
    assert check(str(action)).output == f"{action}: ok\n"
