"""Whole runs of `firebrick run` under the real Firecracker in its jail: with and without page server, with a network, and killed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firebrick.machine.seat import FIRST_ID, MOST
from lab.ground import Ground
from tests.lab.node import ALLOWED, OTHER, SMALL, firebrick, left, processes, run, world

WORKFLOW = f"""\
on: push
jobs:
  build:
    runs-on: base
    steps:
      - uses: actions/checkout@v4
      - run: cat greeting > out.txt && curl -fsS --max-time 20 http://{ALLOWED}/said >> out.txt
      - run: |
          status=0
          curl -sS --max-time 5 http://{OTHER}/said || status=$?
          test $status = 7 || test $status = 28
      - uses: actions/upload-artifact@v4
        with: {{ name: out, path: out.txt }}
"""
FAILING = """\
on: push
jobs:
  build:
    runs-on: base
    steps:
      - uses: actions/checkout@v4
      - run: echo by a step > made
      - run: exit 7
"""
CONFIG = f"""\
[node]
driver = "firecracker"
network = true

[[node.allow]]
to = "{ALLOWED}"
ports = [80]
"""


@pytest.fixture(scope="module")
def home(users_home: Path, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a node that runs jailed Firecracker, with a server somewhere else."""
    served = tmp_path_factory.mktemp("served")
    (served / "said").write_text("from somewhere else\n")
    found = users_home / ".firebrick"
    with pytest.MonkeyPatch.context() as patch, world(served):
        patch.setenv("FIREBRICK_HOME", str(found))
        patch.setenv("MICROVM_FIRECRACKER_BIN", str(ground.firecracker))
        yield found


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    found = tmp_path / "sources"
    (found / ".github/workflows").mkdir(parents=True)
    (found / ".github/workflows/build.yml").write_text(WORKFLOW)
    (found / "greeting").write_text("hello\n")
    return found


def set_up(home: Path, **settings: str) -> None:
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (home / "config.toml").write_text(CONFIG.replace("network = true\n", f"network = true\n{more}"))


def run_all(sources: Path, artifacts: Path) -> None:
    """The workflow, to its end. What it left behind shows what it reached."""
    done = run("-C", str(sources), "--artifacts", str(artifacts), *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    [out] = artifacts.rglob("out.txt")
    assert out.read_text() == "hello\nfrom somewhere else\n"


@contextmanager
def busy(sources: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose step sleeps, once it does."""
    argv = firebrick("run", "--json", "-C", str(sources), *SMALL, "--command", "echo asleep; sleep 600")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            events: Iterator[dict[str, Any]] = (json.loads(line) for line in process.stdout)
            assert any(event.get("text", event.get("line", "")).startswith("asleep") for event in events)
            yield process
        finally:
            process.kill()


def facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_a_workflow_runs_jailed_and_reaches_what_it_may(home: Path, sources: Path, tmp_path: Path) -> None:
    set_up(home)
    run_all(sources, tmp_path / "artifacts")
    assert left(home) == {}


def test_a_killed_run_leaves_nothing_that_the_next_does_not_remove(home: Path, sources: Path, tmp_path: Path) -> None:
    set_up(home, page_server="true")
    with busy(sources) as doomed:
        [vmm] = processes("firecracker")
        [pager] = processes("firebrick-pager")
        told = facts(vmm)
        assert int(told["Uid"].split()[0]) in range(FIRST_ID, FIRST_ID + MOST)
        assert (told["CapEff"], told["Seccomp"], facts(pager)["Uid"]) == ("0" * 16, "2", told["Uid"])
        assert Path(f"/proc/{vmm}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        doomed.kill()
        doomed.wait()
    here = left(home)
    assert {"groups", "namespaces", "machines"} <= here.keys()
    run_all(sources, tmp_path / "artifacts")
    assert left(home) == {}


def test_the_jailed_machine_of_a_failed_step_is_kept(home: Path, sources: Path) -> None:
    set_up(home)
    (sources / ".github/workflows/build.yml").write_text(FAILING)
    done = run("-C", str(sources), "--keep", "on-failure", "--checkpoint", "before:3", *SMALL)
    assert done.returncode == 1, done.stdout + done.stderr
    script = f"cat greeting made; curl -fsS --max-time 20 http://{ALLOWED}/said"
    assert _output("debug", "last", "--", "sh", "-c", script) == "hello\nby a step\nfrom somewhere else\n"
    assert "by a step" in _output("rerun", "last", "--from-step", "3", "--command", "cat made")
    _output("kept", "rm", "--all")
    assert left(home) == {}


def _output(*words: str) -> str:
    done = subprocess.run(firebrick(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
