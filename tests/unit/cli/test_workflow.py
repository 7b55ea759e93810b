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


CALLER = """\
on: push
jobs:
  call:
    uses: ./.github/workflows/called.yml
    with: {wrong: 1}
  uses:
    runs-on: x
    steps:
      - uses: ./actions/hello
        with: {who: me, colour: red}
      - uses: ./actions/hello
        with: {WHO: me}
      - uses: ./not/there
      - uses: ./image
      - uses: ./../outside
"""
CALLED = """\
on:
  workflow_call:
    inputs: {word: {required: true, type: string}}
    secrets: {KEY: {required: true}}
jobs: {a: {runs-on: x, steps: [uses: ./actions/inner]}}
"""
HELLO = """\
name: Hello
description: x
inputs:
  who: {required: true, default: world}
  why: {required: true}
runs:
  using: composite
  steps: [{uses: ./actions/inner}]
"""
INNER = "runs: {using: composite, steps: [{run: x}]}\n"


def repository(root, **changed):
    texts = {
        ".github/workflows/caller.yml": CALLER,
        ".github/workflows/called.yml": CALLED,
        "actions/hello/action.yml": HELLO,
        "actions/inner/action.yaml": INNER,
        "image/Dockerfile": "FROM scratch\n",
        **changed,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_a_workflow_calls_of_its_repository_is_checked_with_it(tmp_path):
    root = repository(tmp_path)
    caller = root / ".github/workflows/caller.yml"
    result = check(str(caller))
    assert result.exit_code == 1
    assert result.output.splitlines()[:5] == [
        f"{root}/actions/inner/action.yaml (Line: 1, Col: 34): Required property is missing: shell",
        f"{caller} (Line: 4, Col: 11): Invalid input, wrong is not defined in the referenced workflow.",
        f"{caller} (Line: 4, Col: 11): Input word is required, but not provided while calling.",
        f"{caller} (Line: 4, Col: 11): Secret KEY is required, but not provided while calling.",
        f"warning: {caller} (Line: 9, Col: 9): Unexpected input(s) 'colour', valid inputs are ['who', 'why']",
    ]


def test_actions_of_the_repository_are_checked_with_what_uses_them(tmp_path, monkeypatch):
    right = CALLER.replace("{wrong: 1}", "{word: x}\n    secrets: inherit")
    monkeypatch.chdir(repository(tmp_path, **{".github/workflows/caller.yml": right}))
    result = check()
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "actions/inner/action.yaml (Line: 1, Col: 34): Required property is missing: shell",
        "warning: .github/workflows/caller.yml (Line: 10, Col: 9): Unexpected input(s) 'colour', valid inputs are ['who', 'why']",
        "warning: .github/workflows/caller.yml (Line: 10, Col: 9): Input required and not supplied: why",
        "warning: .github/workflows/caller.yml (Line: 12, Col: 9): Input required and not supplied: why",
        "warning: .github/workflows/caller.yml (Line: 14, Col: 9): Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under './not/there': the step fails, unless one before it puts it there",
        ".github/workflows/caller.yml: ok",
    ]


def test_a_directory_is_the_workflows_in_it(tmp_path):
    root = repository(
        tmp_path, **{"action.yml": INNER, ".forgejo/workflows/x.yaml": GOOD, ".github/workflows/notes.md": ""}
    )
    for directory, names in [
        (
            root,
            ["action.yml", ".forgejo/workflows/x.yaml", ".github/workflows/called.yml", ".github/workflows/caller.yml"],
        ),
        (root / ".github/workflows", ["called.yml", "caller.yml"]),
    ]:
        result = check("--json", str(directory))
        assert [json.loads(line)["file"] for line in result.output.splitlines()] == [
            f"{directory}/{name}" for name in names
        ]
    (tmp_path / "empty").mkdir()
    result = check(str(tmp_path / "empty"))
    assert (result.exit_code, result.output.splitlines()[0]) == (2, f"error: there is no workflow in {tmp_path}/empty")


def test_a_link_out_of_the_repository_is_not_followed(tmp_path):
    (tmp_path / "secret.yml").write_text(INNER)
    root = repository(
        tmp_path / "repository",
        **{".github/workflows/caller.yml": "on: push\njobs: {a: {runs-on: x, steps: [uses: ./out]}}\n"},
    )
    (root / "out").mkdir()
    (root / "out/action.yml").symlink_to(tmp_path / "secret.yml")
    result = check(str(root / ".github/workflows/caller.yml"))
    assert result.exit_code == 0
    assert "Can't find 'action.yml'" in result.output


def test_an_action_that_uses_itself_is_read_once(tmp_path):
    loop = "name: x\ndescription: x\nruns: {using: composite, steps: [{uses: ./actions/inner}]}\n"
    root = repository(
        tmp_path,
        **{
            "actions/inner/action.yaml": loop,
            ".github/workflows/caller.yml": "on: push\njobs: {a: {runs-on: x, steps: [uses: ./actions/inner]}}\n",
        },
    )
    assert check(str(root / ".github/workflows/caller.yml")).exit_code == 0


DOCKER = "name: x\ndescription: x\nruns: {using: docker, image: %s}\n"
USES = "on: push\njobs: {a: {runs-on: x, steps: [uses: ./actions/inner]}}\n"


def built(root, image, text, **more):
    files = {"actions/inner/action.yaml": DOCKER % image, ".github/workflows/caller.yml": USES, **more}
    return repository(root, **files, **({"actions/inner/Dockerfile": text} if text is not None else {}))


WRONG = """\
FROM debian:12 AS build
COPY . .
  COPY --chmod=u+x a b
RUN --mount=type=bind,target=/x make
ADD $FROM_THE_IMAGE b
FROM nobody/needs:it
RNU x
FROM build
BUILD it
"""


def test_the_dockerfile_of_an_action_is_checked_with_what_uses_it(tmp_path, monkeypatch):
    monkeypatch.chdir(built(tmp_path, "Dockerfile", WRONG))
    lines = [
        "actions/inner/Dockerfile (Line: 3, Col: 3): the mode 'u+x' is not supported. Write it as `755`",
        "actions/inner/Dockerfile (Line: 4, Col: 1): RUN --mount=type=bind,target=/x is not supported. Of mounts there are type=cache and type=tmpfs with a target",
        "actions/inner/Dockerfile (Line: 9, Col: 1): there is no instruction BUILD",
    ]
    result = check(".github/workflows/caller.yml")
    assert result.exit_code == 1
    assert result.output.splitlines()[:3] == lines
    result = check("actions/inner/action.yaml")
    assert (result.exit_code, result.output.splitlines()) == (1, lines)
    found = json.loads(check("--json", "actions/inner/action.yaml").output)["errors"][0]
    assert (found["file"], found["line"], found["column"]) == ("actions/inner/Dockerfile", 3, 3)
    right = WRONG.replace("=u+x", "=755").replace("bind", "cache").replace("BUILD it", "CMD it")
    (tmp_path / "actions/inner/Dockerfile").write_text(right)
    assert check("actions/inner/action.yaml").output == "actions/inner/action.yaml: ok\n"


def test_a_dockerfile_is_an_action_too(tmp_path, monkeypatch):
    monkeypatch.chdir(
        repository(
            tmp_path,
            **{"image/Dockerfile": "RUN x\n", ".github/workflows/caller.yml": USES.replace("actions/inner", "image")},
        )
    )
    result = check(".github/workflows/caller.yml")
    assert result.exit_code == 1
    assert (
        result.output == "image/Dockerfile (Line: 1, Col: 1): the first instruction besides ARG must be FROM, not RUN\n"
    )


@pytest.mark.parametrize("image", ["Dockerfile", "other/Dockerfile", "../../../secret", "../link"])
def test_a_dockerfile_that_is_not_of_the_repository_is_not_read(tmp_path, monkeypatch, image):
    root = built(tmp_path / "repository", image, None)
    for secret in (tmp_path / "secret", root / "secret"):
        secret.write_text("root:x\n")
    (root / "actions/link").symlink_to(root / "secret")
    monkeypatch.chdir(root)
    for file in (".github/workflows/caller.yml", "actions/inner/action.yaml"):
        result = check(file)
        assert result.exit_code == 0
        assert "Can't find '" in result.output
        assert "root:x" not in result.output


def test_a_dockerfile_that_is_too_large_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(built(tmp_path, "Dockerfile", "#" * (1 << 20)))
    result = check("actions/inner/action.yaml")
    assert result.output == "actions/inner/Dockerfile (Line: 1, Col: 1): it has more than 256 KiB\n"
