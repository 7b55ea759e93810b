"""Projects that do not build: each way to fail is told apart, with what a person needs to mend it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.projects.programs import Runner, Server, finished

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

WORKFLOW = ".github/workflows/build.yml"


def workflow(*steps: str, job: str = "") -> str:
    lines = "\n".join(f"      - {step}" for step in ("uses: actions/checkout@v4", *steps))
    return f"on: push\njobs:\n  build:\n    runs-on: toolchain\n{job}    steps:\n{lines}\n"


def test_a_failing_test_fails_the_run(repository: Callable[..., Path], runner: Runner, server: Server) -> None:
    tests = "import unittest\n\nclass Arithmetic(unittest.TestCase):\n    def test_sum(self):\n        self.assertEqual(1 + 1, 3)\n"
    tree = repository(
        **{
            WORKFLOW: workflow("name: Test\n        run: python3 -m unittest -v", "run: echo never reached"),
            "test_sum.py": tests,
        }
    )
    build = server.submit(tree)
    ran = runner.run(tree)
    assert (ran.status, ran.conclusion) == (1, "failure")
    assert ran.failed_steps() == ["Test"]
    assert "AssertionError: 2 != 3" in ran.log
    assert "never reached\n" not in f"{ran.log}\n"
    built = server.wait(build)
    assert built["status"] == "failed"
    assert "AssertionError: 2 != 3" in built["log"]


def test_a_compile_error_is_in_the_log(repository: Callable[..., Path], runner: Runner, server: Server) -> None:
    tree = repository(
        **{
            WORKFLOW: workflow("name: Compile\n        run: make"),
            "Makefile": "prog: prog.c\n",
            "prog.c": "int main(void) { return nothing; }\n",
        }
    )
    build = server.submit(tree)
    ran = runner.run(tree)
    assert (ran.status, ran.failed_steps()) == (1, ["Compile"])
    assert "prog.c:1:25: error:" in ran.log
    (step,) = [event for event in ran.of("step_finished") if event["conclusion"] == "failure"]
    assert step["exit_code"] == 2
    built = server.wait(build)
    assert built["status"] == "failed"
    assert "prog.c:1:25: error:" in built["log"]


def test_a_step_that_takes_too_long_is_ended(repository: Callable[..., Path], runner: Runner, server: Server) -> None:
    tree = repository(**{WORKFLOW: workflow("name: Wait\n        timeout-minutes: 0.05\n        run: sleep 300")})
    ran = runner.run(tree)
    assert (ran.status, ran.failed_steps()) == (1, ["Wait"])
    assert ran.of("run_finished")[-1]["seconds"] < 60
    untimed = repository(**{WORKFLOW: workflow("name: Wait\n        run: echo waiting && sleep 300")})
    built = server.wait(server.submit(untimed, timeout_s=5))
    assert built["status"] == "failed"
    assert "longer than 5 s" in built["message"]


def test_a_run_is_cancelled_by_an_interrupt(repository: Callable[..., Path], runner: Runner) -> None:
    tree = repository(**{WORKFLOW: workflow("run: echo waiting && sleep 300")})
    with runner.start(tree) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if '"waiting"' in line:
                break
        process.send_signal(signal.SIGINT)
        rest = finished(process)
    assert rest.status == 130
    assert rest.conclusion == "cancelled"


def test_a_build_is_cancelled_through_the_api(repository: Callable[..., Path], server: Server) -> None:
    tree = repository(**{WORKFLOW: workflow("run: echo waiting && sleep 300")})
    build = server.submit(tree)
    assert server.wait(build, "running_build")["status"] == "running_build"
    assert server.client.post(f"/build/{build}/cancel").status_code < 300
    built = server.wait(build)
    assert built["status"] == "failed"
    assert "cancel" in built["message"].lower()


def test_a_mistake_in_the_workflow_is_told_with_its_place(
    repository: Callable[..., Path], runner: Runner, server: Server
) -> None:
    mistaken = workflow("run: make").replace("    steps:", "    stepz:")
    line = mistaken.splitlines().index("    stepz:") + 1
    tree = repository(**{WORKFLOW: mistaken})
    ran = runner.run(tree)
    assert ran.status == 2
    place = f"(Line: {line}, Col: 5): "
    assert WORKFLOW in ran.stderr
    assert f"{place}Unexpected value 'stepz' (expected: 'steps'?)" in ran.stderr
    built = server.wait(server.submit(tree))
    assert built["status"] == "failed"
    assert place in built["message"]
