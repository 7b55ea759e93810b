"""The lab, from outside: what goes in, what comes out, and that a failure brings its evidence along."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.host import ROOT, Place
from lab.session import Session, run_session

# The first lab of a tree is made: its image, its packages, its host.
pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

_TEST = """
import sys

def test_that_fails(evidence, tmp_path):
    evidence.add("said.txt", lambda: "what it had to say")
    (tmp_path / "firecracker.log").write_text("its log")
    sys.stdout.write("words of the test")
    assert False, "as it should"

def test_that_passes(tmp_path):
    (tmp_path / "quiet.txt").write_text("nobody asks")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree of its own, with the lab's own conftest and one test that fails."""
    tree = tmp_path / "project"
    (tree / "tests/lab").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/lab/conftest.py"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("lab", "bench", "src"):
        shutil.copytree(ROOT / name, tree / name)
    (tree / "tests/lab/test_one.py").write_text(_TEST)
    subprocess.run(["git", "init", "--quiet", tree], check=True)
    return tree


async def test_a_failed_test_brings_its_evidence(project: Path, tmp_path: Path, capfdbinary) -> None:
    evidence = tmp_path / "evidence"
    session = Session(project=project, evidence=evidence, tests=("tests/lab",))
    assert await run_session(session, Place.of_tree()) == 1
    out = capfdbinary.readouterr().out
    assert b"AssertionError: as it should" in out
    assert b"1 failed, 1 passed" in out
    (of_test,) = [found for found in evidence.iterdir() if found.is_dir()]
    assert "test_that_fails" in of_test.name
    kept = {file.name: file.read_text() for file in of_test.iterdir()}
    assert kept["said.txt"] == "what it had to say"
    assert kept["firecracker.log"] == "its log"
    assert "SVM" in kept["dmesg.txt"]
    assert (evidence / "dmesg.txt").stat().st_size > 0
    assert (evidence / "console.txt").is_file()


async def test_a_commands_output_and_status_come_out_and_nothing_else_is_left(
    project: Path, tmp_path, capfdbinary
) -> None:
    evidence = tmp_path / "evidence"
    argv = ["sh", "-c", "echo to stdout; echo to stderr >&2; test -c /dev/kvm && test $WORD = said && exit 7"]
    session = Session(project=project, argv=argv, evidence=evidence, environment={"WORD": "said"})
    assert await run_session(session, Place.of_tree()) == 7
    assert capfdbinary.readouterr().out == b"to stdout\nto stderr\n"
