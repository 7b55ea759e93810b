"""Which workflow runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firebrick.server.errors import PlanError
from firebrick.server.plan import make_plan, workflow_paths
from firebrick.server.record import BuildRequest
from firebrick.workflow.problem import WorkflowError

JOBS = "jobs: {build: {runs-on: linux, steps: [{run: 'true'}]}}\n"


def request(**fields: str) -> BuildRequest:
    return BuildRequest(repo_url="https://example.org/o/n", **fields)  # type: ignore[arg-type]


def put(tree: Path, path: str, text: str) -> None:
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def test_the_named_workflow_comes_before_all(tmp_path: Path) -> None:
    put(tmp_path, "ci/mine.yml", f"name: mine\non: push\n{JOBS}")
    put(tmp_path, ".github/workflows/a.yml", f"name: a\non: push\n{JOBS}")
    assert make_plan(tmp_path, request(workflow="ci/mine.yml", command="make")).workflow.name == "mine"


def test_then_the_command(tmp_path: Path) -> None:
    put(tmp_path, ".github/workflows/a.yml", f"name: a\non: push\n{JOBS}")
    workflow = make_plan(tmp_path, request(command="make\nmake check")).workflow
    (job,) = workflow.jobs.values()
    assert [step.run.raw if step.run else step.uses for step in job.steps] == [
        "actions/checkout@v4",
        "make\nmake check",
    ]


@pytest.mark.parametrize("command", ["echo 'a' \"b\" \\ : # - {x}", "a\tb", "ü\u2028", "echo x\n\n", "- :\n  ? ["])
def test_a_command_is_kept_as_it_is(tmp_path: Path, command: str) -> None:
    (job,) = make_plan(tmp_path, request(command=command)).workflow.jobs.values()
    assert job.steps[1].run is not None
    assert job.steps[1].run.raw == command


def test_then_the_first_of_the_repository_that_runs_on_a_push(tmp_path: Path) -> None:
    put(tmp_path, ".github/workflows/a.yml", f"name: a\non: pull_request\n{JOBS}")
    put(tmp_path, ".github/workflows/b.yaml", f"name: b\non: [push, pull_request]\n{JOBS}")
    put(tmp_path, ".github/workflows/c.yml", f"name: c\non: push\n{JOBS}")
    put(tmp_path, ".github/workflows/README.md", "no workflow")
    assert make_plan(tmp_path, request()).workflow.name == "b"
    put(tmp_path, ".forgejo/workflows/z.yml", f"name: z\non: workflow_dispatch\n{JOBS}")
    assert make_plan(tmp_path, request()).workflow.name == "z"


def test_a_mistake_is_told_with_its_place(tmp_path: Path) -> None:
    put(tmp_path, ".github/workflows/a.yml", "on: push\njobs:\n  build:\n    runs-on: linux\n    stepz: []\n")
    with pytest.raises(WorkflowError) as caught:
        make_plan(tmp_path, request())
    assert "(Line: 5, Col: 5)" in str(caught.value)


@pytest.mark.parametrize("path", ["none.yml", "../outside.yml", "link.yml", "dir", "dirlink/outside.yml"])
def test_nothing_outside_the_tree_is_read(tmp_path: Path, path: str) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    put(tmp_path, "outside.yml", f"name: outside\non: push\n{JOBS}")
    (tree / "link.yml").symlink_to("../outside.yml")
    (tree / "dirlink").symlink_to("..")
    with pytest.raises(PlanError):
        make_plan(tree, request(workflow=path))


def test_a_linked_directory_of_workflows_is_not_looked_into(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / ".github").mkdir(parents=True)
    put(tmp_path, "elsewhere/a.yml", f"name: elsewhere\non: push\n{JOBS}")
    (tree / ".github" / "workflows").symlink_to("../../elsewhere")
    with pytest.raises(PlanError):
        make_plan(tree, request())


def test_then_what_the_files_say(tmp_path: Path) -> None:
    put(tmp_path, "Makefile", "all:\n")
    plan = make_plan(tmp_path, request())
    assert plan.workflow.name == "make"
    assert plan.collect
    mine = BuildRequest(repo_url="https://example.org/o/n", artifacts=("mine/*",))
    assert make_plan(tmp_path, mine).collect == ("mine/*",)


def test_nothing_to_go_by(tmp_path: Path) -> None:
    put(tmp_path, "README", "x")
    with pytest.raises(PlanError, match="no workflow") as caught:
        make_plan(tmp_path, request())
    assert "command" in caught.value.hint


@pytest.mark.parametrize("name", [b"a\xff.yml", b"a\nb.yml", b"\x1b[2J.yml"])
def test_what_has_no_name_that_can_be_told_is_no_workflow(tmp_path: Path, name: bytes) -> None:
    put(tmp_path, ".github/workflows/b.yml", f"name: b\non: push\n{JOBS}")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/.github/workflows/" + name)).write_text(f"name: a\non: push\n{JOBS}")
    assert workflow_paths(tmp_path) == [".github/workflows/b.yml"]
