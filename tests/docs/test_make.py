"""What `make` and the scripts behind it say without doing anything."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.place import ROOT

SCRIPTS = sorted(
    path
    for path in [*(ROOT / "tools").iterdir(), ROOT / ".ci/run"]
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)


def test_make_alone_prints_every_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE) == phony.split()


def test_setup_knows_its_parts() -> None:
    done = subprocess.run(["tools/setup", "everything"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no part 'everything'" in done.stderr
    assert "packages rust python agent pager tether images" in done.stderr


def test_a_step_that_fails_shows_its_last_words_and_a_hint(tmp_path: Path) -> None:
    script = f". {ROOT}/tools/say.sh; quietly Step working 'Do that.' sh -c 'echo last words; exit 3'"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "| last words" in done.stderr
    assert "Step: working failed (exit status 3; all of it: build/log/Step.log)" in done.stderr
    assert "Do that." in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell_and_may_be_started(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
