"""Every command the documentation shows is run. `console` blocks are run here, page by page, in a shell as a reader would; `sh` blocks change the host, and are
run by what is named here.

A reader's shell starts in an empty directory with `firebrick` on the path, a home of its own, and what the pages take for granted: a repository, a server's port. A block
marked `background` goes on while the next ones are run, as in another terminal.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.page import PAGES, blocks, name
from tests.docs.shell import shell
from tests.place import ROOT, environment, make_home
from tools import project

# A command of an `sh` block, and where it is run instead: a file, and what stands in it.
ELSEWHERE = {
    r"make (demo|lint|test|test-lab|wheel|bench)": (".ci/run", r"make --no-print-directory {0}"),
    r"tools/lab( .*)?": ("Makefile", "@tools/lab"),
    r"make setup": ("Makefile", r"@tools/setup"),
    r"\.ci/run": (".ci/run", r"#!/usr/bin/env bash"),
    r"sudo apt-get install --no-install-recommends .*": ("tools/setup", "install --no-install-recommends"),
    r"python3 -m venv ~/firebrick": ("tools/check-wheel", "-m venv"),
    r"~/firebrick/bin/pip install firebrick-.*\.whl": ("tools/check-wheel", "-m pip install"),
    r"~/firebrick/bin/firebrick image build base toolchain": ("tools/setup", "firebrick image build base toolchain"),
    r"~/firebrick/bin/firebrick doctor": ("tools/check-wheel", "firebrick doctor"),
    r"sudo usermod (--add-subuids) .*": ("tools/check-wheel", "usermod {0}"),
    r"export PATH=.*": ("tests/docs/test_commands.py", "PATH"),
    r"firebrick rerun --server http://127\.0\.0\.1:8080 BUILD --failed": (
        "tests/e2e/test_by_the_clock.py",
        '"rerun", build_id, "--failed"',
    ),
    r"firebrick approve BUILD.*": ("tests/e2e/test_by_the_clock.py", 'cli, "approve"'),
    r"curl --json '\{\}' http://127\.0\.0\.1:8080/build/\$BUILD/cancel": (
        "tests/scenarios/projects/test_what_goes_wrong.py",
        "/cancel",
    ),
}
# Shown, and run by nothing: why.
NOT_RUN = {
    "make test-kvm": "needs a host with KVM and root; `make test-lab` runs the same tests in an emulated one",
    "firebrick kernel build --tuned": "takes ten minutes; where it was built, tests/image boots the result",
    'sudo usermod --append --groups kvm "$USER"': "who may open KVM on the host is not for a test to change",
    "sudo update-grub": "which kernel a host starts, and how, is not for a test to change",
    "firebrick debug last": "needs a person at a terminal; tests/e2e opens one on a pseudo-terminal",
    "firebrick vm shell MACHINE": "needs a person at a terminal; tests/e2e opens one on a pseudo-terminal",
}
# A page for a host with KVM and Firecracker: what runs its `console` blocks there.
IN_THE_LAB = {"production-host.md": "tests/lab/test_production_host.py"}
_START_LIMIT_S = 30
WORKFLOW = """\
on: push
jobs:
  build:
    runs-on: base
    steps:
      - uses: actions/checkout@v4
      - run: ls -l .github
"""
# What goes on while somebody reads the page about jobs that fail.
STUCK = "echo here > /var/log/build.log && sleep 600"


def shown(language: str) -> list[tuple[Path, str]]:
    return [
        (page, line)
        for page in PAGES
        for block in blocks(page)
        if block.language == language
        for line in block.commands()
    ]


def test_commands_that_change_the_host_are_run_elsewhere() -> None:
    for page, command in shown("sh"):
        if command in NOT_RUN:
            continue
        found = [(match, place) for pattern, place in ELSEWHERE.items() if (match := re.fullmatch(pattern, command))]
        assert found, f"{name(page)} shows `{command}`, and nothing is said to run it"
        match, (file, words) = found[0]
        assert words.format(*match.groups()) in (ROOT / file).read_text(), f"{file} does not run `{command}`"


def test_packages_shown_are_packages_asked_for() -> None:
    known = {line.partition("#")[0].strip() for line in (ROOT / "debian-packages.txt").read_text().splitlines()}
    for _, command in shown("sh"):
        if "apt-get install" in command:
            assert set(command.split("--no-install-recommends ")[1].split()) <= known


@contextlib.contextmanager
def in_background(command: str, directory: Path, variables: dict[str, str]) -> Iterator[None]:
    """`firebrick serve` in another terminal, from when it answers until it is interrupted."""
    with subprocess.Popen(
        ["bash", "-c", f"exec env {command}"], cwd=directory, env=variables, stdin=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + _START_LIMIT_S
            url = f"http://127.0.0.1:{variables['FIREBRICK_PORT']}/health"
            while not _answers(url):
                assert process.poll() is None, f"`{command}` ended with {process.returncode}"
                assert time.monotonic() < deadline, f"`{command}` does not answer"
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGINT)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """The directory a reader starts in, the environment, and what stands in the pages for what only the reader knows."""
    directory = tmp_path / "reader"
    repository = directory / "path/to/repository"
    workflow = repository / ".github/workflows/build.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(WORKFLOW)
    project.commit(repository, "Start")
    port = str(_free_port())
    home = make_home(tmp_path / "home")
    variables = environment(
        home, FIREBRICK_PORT=port, FIREBRICK_ALLOW_LOCAL_REPOS="true", REPOSITORY=str(repository), HOME=str(directory)
    )
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    replaced = {"https://example.org/project.git": f"file://{repository}", "127.0.0.1:8080": f"127.0.0.1:{port}"}
    return directory, variables, replaced


def _pages_with_commands() -> list[Path]:
    pages = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]
    return [page for page in pages if page.name not in IN_THE_LAB]


def test_pages_for_other_hosts_are_run_there() -> None:
    for page, file in IN_THE_LAB.items():
        assert (ROOT / "docs/how-to" / page).is_file()
        assert f'"docs/how-to/{page}"' in (ROOT / file).read_text(), f"{file} does not run {page}"


@contextlib.contextmanager
def stuck_job(variables: dict[str, str]) -> Iterator[str]:
    """A run with a step that sleeps; the id of its machine."""
    argv = ["firebrick", "run", "--json", "--image", "base", "--command", STUCK, "-C", variables["REPOSITORY"]]
    with subprocess.Popen(argv, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            events = (json.loads(line) for line in process.stdout)
            machine = next(event["machine"] for event in events if event["event"] == "job_started")
            next(event for event in events if event["event"] == "step_started")
            yield machine
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


@pytest.mark.machine
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", _pages_with_commands(), ids=name)
def test_commands_work_as_shown(page: Path, reader: tuple[Path, dict[str, str], dict[str, str]]) -> None:
    directory, variables, replaced = reader
    with contextlib.ExitStack() as terminals:
        foreground = terminals.enter_context(shell(directory, variables))
        if page.name == "debug.md":
            replaced["MACHINE"] = terminals.enter_context(stuck_job(variables))
        for block in blocks(page):
            for command in block.commands() if block.language == "console" else []:
                if command in NOT_RUN:
                    continue
                for word, meant in replaced.items():
                    command = command.replace(word, meant)
                if "background" in block.options:
                    terminals.enter_context(in_background(command, foreground.directory, variables))
                else:
                    foreground.run(command)
