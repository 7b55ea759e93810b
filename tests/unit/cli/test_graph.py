"""`firebrick workflow graph`."""

import pytest
from typer.testing import CliRunner

from firebrick.cli.errors import UsageError
from firebrick.cli.workflow import app
from firebrick.workflow.problem import WorkflowError

WORKFLOW = "on: push\njobs: {a: {runs-on: x, steps: [run: x]}, b: {needs: a, runs-on: x, steps: [run: x]}}\n"


def graph(*arguments: object):
    result = CliRunner().invoke(app, ["graph", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def file(tmp_path):
    (tmp_path / "ci.yml").write_text(WORKFLOW)
    return tmp_path / "ci.yml"


def test_to_stdout_and_to_a_file(file, tmp_path):
    drawn = graph(file)
    assert drawn.startswith("<svg ")
    assert drawn.endswith("</svg>\n")
    assert graph(file, "--output", tmp_path / "ci.svg") == ""
    assert (tmp_path / "ci.svg").read_text() == drawn


def test_what_cannot_be_read_written_or_drawn(file, tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        graph(tmp_path / "none.yml")
    with pytest.raises(UsageError, match="cannot write"):
        graph(file, "-o", tmp_path / "no" / "ci.svg")
    file.write_text("on: push\n")
    with pytest.raises(WorkflowError, match="Required property is missing: jobs"):
        graph(file)
