"""What `firebrick run` makes of a command line and a tree."""

import subprocess

import pytest

from firebrick.cli.errors import UsageError
from firebrick.cli.order import Wish, describe_source, make_order
from firebrick.node.order import Resources
from firebrick.server.plan import workflow_paths
from firebrick.workflow.problem import WorkflowError

JOB = "on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n"


def git(tree, *words):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", "-C", str(tree), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    target = tmp_path / "hello"
    target.mkdir()
    git(target, "init", "-q", "-b", "main")
    return target


def put(tree, name, text=JOB):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def order(tree, **fields):
    values = {"workflow": None, "command": None, "jobs": (), "image": None, "resources": Resources(), "secrets": {}}
    return await make_order(Wish(repository=tree, **{**values, **fields}), id="r", artifact_dir=tree / "out")


async def test_the_only_workflow(tree):
    put(tree, ".forgejo/workflows/ci.yml")
    assert (await order(tree)).workflow.path == ".forgejo/workflows/ci.yml"


async def test_the_directory_of_another_forge_is_meant_where_there_is_one(tree):
    """The same one as a server finds."""
    put(tree, ".forgejo/workflows/notes.md")
    for name in (".github/workflows/a.yml", ".gitea/workflows/b.yml", ".forgejo/workflows/c.yml"):
        put(tree, name)
        assert (await order(tree)).workflow.path == name
        assert workflow_paths(tree) == [name]
    assert (await order(tree, workflow=".github/workflows/a.yml")).workflow.path == ".github/workflows/a.yml"


async def test_several_must_be_named_and_are_listed(tree):
    put(tree, ".github/workflows/a.yml")
    put(tree, ".github/workflows/b.yaml")
    with pytest.raises(UsageError, match=r"several workflows: a\.yml, b\.yaml") as error:
        await order(tree)
    assert "firebrick run a.yml" in error.value.hint
    for name in ("b.yaml", "b", ".github/workflows/b.yaml"):
        assert (await order(tree, workflow=name)).workflow.path == ".github/workflows/b.yaml"


async def test_a_name_nobody_has(tree):
    put(tree, ".github/workflows/a.yml")
    with pytest.raises(UsageError, match="no workflow z") as error:
        await order(tree, workflow="z")
    assert "a.yml" in error.value.hint


async def test_a_mistake_has_its_place(tree):
    put(tree, ".github/workflows/a.yml", JOB.replace("steps", "stepz"))
    with pytest.raises(WorkflowError, match=r"a\.yml \(Line: 2, Col: \d+\)"):
        await order(tree)


async def test_without_a_workflow_what_the_sources_call_for(tree):
    put(tree, "Makefile", "all:\n")
    found = await order(tree)
    assert found.workflow.path == "make (detected)"
    assert found.collect


async def test_nothing_to_run(tree):
    with pytest.raises(UsageError, match="has no workflow"):
        await order(tree)


async def test_a_command_of_ones_own(tree):
    found = await order(tree, command="echo ${{ not evaluated }}")
    assert found.workflow.jobs["build"].steps[-1].run.raw == "echo ${{ not evaluated }}"
    with pytest.raises(UsageError, match="both"):
        await order(tree, command="true", workflow="a.yml")


async def test_a_job_nobody_has(tree):
    put(tree, ".github/workflows/a.yml")
    with pytest.raises(UsageError, match="has no job nope"):
        await order(tree, jobs=("nope",))


async def test_what_git_says_of_the_source(tree):
    put(tree, "deep/file")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "One")
    git(tree, "remote", "add", "origin", "git@forge.example:octo/cat.git")
    source = await describe_source(tree / "deep")
    assert source.path == tree
    assert (source.repository, source.ref) == ("octo/cat", "refs/heads/main")
    assert source.sha == git(tree, "rev-parse", "HEAD")


async def test_a_directory_that_is_no_repository(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    source = await describe_source(plain)
    assert (source.path, source.ref, source.sha) == (plain, "", "")
    assert source.repository.endswith("/plain")
