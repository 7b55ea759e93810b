"""The workflow language: expressions against the same written in Python, and a workflow of 200 jobs against the YAML parser alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ruamel.yaml import YAML

from bench.bed import Bed
from bench.row import Row, compared
from firebrick.workflow.expression.expression import Scope, parse_expression
from firebrick.workflow.expression.value import Value
from firebrick.workflow.plan import plan
from firebrick.workflow.reader import read_workflow

_REPEATS: Final = 7
_EVALUATIONS: Final = 2_000
_JOBS: Final = 200
_CONTEXTS: Final[dict[str, Value]] = {
    "github": {
        "event_name": "push",
        "ref": "refs/heads/main",
        "sha": "a" * 40,
        "event": {
            "head_commit": {"message": "Correct a mistake"},
            "pull_request": {"labels": [{"name": f"label {number}"} for number in range(8)]},
        },
    },
    "matrix": {"os": "linux", "version": 3.0},
    "needs": {"build": {"result": "success"}},
}
_EXPRESSIONS: Final = (
    "github.event_name == 'push' && startsWith(github.ref, 'refs/heads/') && !contains(github.event.head_commit.message, '[skip]')",
    "format('{0}-{1}-{2}', matrix.os, matrix.version, github.sha)",
    "contains(github.event.pull_request.labels.*.name, 'benchmark') || needs.build.result == 'success'",
)


def _in_python(c: Mapping[str, Any]) -> tuple[object, ...]:
    """What the expressions say, by hand."""
    github, matrix = c["github"], c["matrix"]
    return (
        github["event_name"].upper() == "PUSH"
        and github["ref"].upper().startswith("REFS/HEADS/")
        and "[SKIP]" not in github["event"]["head_commit"]["message"].upper(),
        "{}-{}-{}".format(matrix["os"], f"{matrix['version']:.15G}", github["sha"]),
        any(label["name"].upper() == "BENCHMARK" for label in github["event"]["pull_request"]["labels"])
        or c["needs"]["build"]["result"].upper() == "SUCCESS",
    )


_WORKFLOW: Final = f"""\
on: {{push: {{branches: [main]}}}}
env: {{LEVEL: high}}
jobs:
  test:
    name: Test ${{{{ matrix.os }}}} ${{{{ matrix.version }}}}
    runs-on: ${{{{ matrix.os }}}}
    strategy:
      matrix:
        os: [debian, alpine, fedora, arch]
        version: [{", ".join(map(str, range(_JOBS // 4)))}]
    steps:
      - uses: actions/checkout@v4
      - run: make
      - run: make test
        if: success() && matrix.version != 3
        env: {{VERSION: "${{{{ matrix.version }}}}"}}
"""


async def language(_: Bed) -> list[Row]:
    expressions = [parse_expression(text) for text in _EXPRESSIONS]
    scope = Scope(_CONTEXTS)
    count = _EVALUATIONS * len(expressions)
    return [
        compared(
            "expressions evaluated",
            "1/s",
            [count / seconds for seconds in _times(lambda: _repeat(lambda: _in_python(_CONTEXTS)))],
            [
                count / seconds
                for seconds in _times(lambda: _repeat(lambda: [each.evaluate(scope) for each in expressions]))
            ],
            0.01,
            more_is_better=True,
        ),
        compared(
            f"parse and plan {_JOBS} jobs",
            "ms",
            [seconds * 1e3 for seconds in _times(_parse)],
            [seconds * 1e3 for seconds in _times(_parse_and_plan)],
            4.0,
        ),
    ]


def _times(run: Callable[[], object]) -> list[float]:
    """Seconds of each run; the first one, which fills caches, does not count."""
    run()
    return [_seconds(run) for _ in range(_REPEATS)]


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _repeat(run: Callable[[], object]) -> None:
    for _ in range(_EVALUATIONS):
        run()


def _parse() -> None:
    """The events of the file: what the parser alone makes of it."""
    for _ in YAML(typ="safe", pure=True).parse(_WORKFLOW):
        pass


def _parse_and_plan() -> None:
    planned = plan(read_workflow(_WORKFLOW, "ci.yml"), contexts=_CONTEXTS)
    if len(planned.jobs) != _JOBS:
        raise AssertionError(f"the plan has {len(planned.jobs)} jobs")
