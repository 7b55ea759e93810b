"""Workflows of twenty kinds of projects: each is read without a mistake, but for what cannot be run yet, which `not-yet.txt` lists.

Where that list and the program differ, the list is wrong: `FIREBRICK_WRITE_EXPECTED=1` writes it anew, and the difference is to be looked at."""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from firebrick.workflow.diagram import draw
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.matrix import expand_matrix, tree_value
from firebrick.workflow.plan import plan
from firebrick.workflow.problem import Problem, WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.schema.shape import Walk
from firebrick.workflow.template import tree_templates

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yml"))
NOT_YET = HERE / "not-yet.txt"
_LACK = re.compile(r"'[\w-]+' is not supported yet|The action '.+' is not supported yet")


def problems(path: Path) -> tuple[Problem, ...]:
    try:
        read_workflow(path.read_bytes(), path.name)
    except WorkflowError as error:
        return error.errors
    return ()


@pytest.fixture
def patient(monkeypatch):
    """Reading goes on where the only problems are things that cannot be run yet."""

    def finish(walk: Walk, hint: str) -> None:
        assert [str(problem) for problem in walk.problems if not _LACK.fullmatch(problem.message)] == []

    monkeypatch.setattr(Walk, "finish", finish)


def test_there_are_twenty():
    assert len(FILES) == 20


def test_only_what_cannot_be_run_yet_is_a_problem():
    every = [problem for path in FILES for problem in problems(path)]
    assert [str(problem) for problem in every if not _LACK.fullmatch(problem.message)] == []
    found = [f"{problem.file} {problem.position}: {problem.message}" for problem in every]
    if os.environ.get("FIREBRICK_WRITE_EXPECTED") == "1":
        NOT_YET.write_text("".join(f"{problem}\n" for problem in found))
    assert found == NOT_YET.read_text().splitlines()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("patient")
def test_each_can_be_drawn(path):
    workflow = read_workflow(path.read_bytes(), path.name)
    root = ElementTree.fromstring(draw(workflow))
    boxes = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if "box" in rect.get("class")]
    assert len(boxes) == len(workflow.jobs)


CONTEXTS = {
    "github": {
        "ref": "refs/heads/main",
        "ref_name": "main",
        "event_name": "push",
        "sha": "0" * 40,
        "repository": "example/project",
        "event": {},
    },
    "inputs": {"parallel": "2", "channel": "beta", "environment": ""},
    "vars": {},
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("patient")
def test_each_is_planned(path):
    workflow = read_workflow(path.read_bytes(), path.name)
    planned = plan(workflow, contexts=CONTEXTS)
    assert {each.job.id for each in planned.jobs} == set(workflow.jobs)
    assert all(each.name for each in planned.jobs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("patient")
def test_matrices_have_the_jobs_they_should(path):
    workflow = read_workflow(path.read_bytes(), path.name)
    counts = {
        name: len(expand_matrix(tree_value(job.strategy.matrix, Scope())))
        for name, job in workflow.jobs.items()
        if job.strategy is not None and all(template.is_literal for template in tree_templates(job.strategy.matrix))
    }
    assert counts == COUNTS.get(path.stem, {})


COUNTS = {
    "android": {"device": 6},
    "cmake-matrix": {"build": 7},
    "codeql": {"analyze": 3},
    "compiler": {"build": 40},
    "docker-build-push": {"build": 2},
    "electron": {"package": 6},
    "go-release": {"test": 4},
    "helm-chart": {"install": 4},
    "nightly": {"build": 2},
    "node-library": {"test": 10, "types": 3},
    "python-package": {"tests": 6},
    "release-please": {"binaries": 3},
    "rust-crate": {"test": 6},
    "service-containers": {"postgres": 3},
}
