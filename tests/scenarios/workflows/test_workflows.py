"""Workflows of twenty kinds of projects: each is read without a mistake, drawn and planned."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from firebrick.workflow.diagram import draw
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.matrix import expand_matrix, tree_value
from firebrick.workflow.plan import plan
from firebrick.workflow.problem import Problem, WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.template import tree_templates

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yml"))


def problems(path: Path) -> tuple[Problem, ...]:
    try:
        read_workflow(path.read_bytes(), path.name)
    except WorkflowError as error:
        return error.errors
    return ()


def test_there_are_twenty():
    assert len(FILES) == 20


def test_none_has_a_mistake():
    assert [str(problem) for path in FILES for problem in problems(path)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
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
def test_each_is_planned(path):
    workflow = read_workflow(path.read_bytes(), path.name)
    planned = plan(workflow, contexts=CONTEXTS)
    assert {each.job.id for each in planned.jobs} == set(workflow.jobs)
    assert all(each.name for each in planned.jobs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
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
